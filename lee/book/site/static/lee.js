// Draws the Vega-Lite charts of a page. Everything it loads lies beside it.
(() => {
  "use strict";
  const here = document.currentScript.src;

  // Specs carry no colour of text or background. In an SVG `currentColor` follows the page, so light mode,
  // dark mode and print need no second drawing.
  const ink = "currentColor";
  const LEGEND_ENTRY = 140; // pixels

  const config = (width) => ({
    background: "transparent",
    // The page's own font: Vega measures words with it to place them, so it has to be a real name.
    font: getComputedStyle(document.body).fontFamily,
    axis: { labelColor: ink, titleColor: ink, domainColor: ink, tickColor: ink, gridColor: ink,
      labelOpacity: 0.8, domainOpacity: 0.4, tickOpacity: 0.4, gridOpacity: 0.13 },
    legend: { labelColor: ink, titleColor: ink, columns: Math.max(1, Math.floor(width / LEGEND_ENTRY)) },
    header: { labelColor: ink, titleColor: ink },
    title: { color: ink, subtitleColor: ink },
    text: { color: ink },
    rule: { color: ink },
    view: { stroke: null },
  });

  function loadVega() {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("vendor/vega/vega.js", here).href;
      script.onload = resolve;
      script.onerror = () => reject(new Error("The chart library did not load."));
      document.head.append(script);
    });
  }

  async function draw(host) {
    const spec = JSON.parse(host.querySelector("script[type='application/json']").textContent);
    if (spec.usermeta?.fluid) spec.width = "container"; // a notebook's charts have a width in pixels, and a picture beside them
    const canvas = document.createElement("div");
    canvas.className = "lee-chart-canvas";
    host.append(canvas);
    const options = { mode: "vega-lite", actions: false, renderer: "svg", config: config(host.clientWidth) };
    await window.vegaEmbed(canvas, spec, options);
    host.dataset.room = host.getBoundingClientRect().width;
    rooms.observe(host);
    host.dataset.state = "drawn";
  }

  function fail(host, error) {
    host.dataset.state = "failed";
    host.append(`The chart could not be drawn: ${error.message}`);
    console.error(error);
  }

  async function main() {
    const hosts = [...document.querySelectorAll(".lee-chart")];
    if (hosts.length === 0) return;
    try {
      await loadVega();
    } catch (error) {
      hosts.forEach((host) => fail(host, error));
      return;
    }
    for (const host of hosts) await draw(host).catch((error) => fail(host, error));
  }

  // Paper is white: a page in dark mode is printed as in light mode, code and all.
  const root = document.documentElement;
  let before = null;
  window.matchMedia("print").addEventListener("change", (paper) => {
    if (paper.matches) before = root.dataset.theme;
    root.dataset.theme = paper.matches ? "light" : before;
  });

  // Vega measures its room when the window's size changes; but a room changes with side bars and <details>, too.
  const rooms = new ResizeObserver((changes) => {
    const moved = changes.filter(({ target, contentRect }) => Number(target.dataset.room) !== contentRect.width);
    moved.forEach(({ target, contentRect }) => { target.dataset.room = contentRect.width; });
    if (moved.length > 0) window.dispatchEvent(new Event("resize"));
  });

  // What scrolls sideways has to be within reach of the keyboard, too.
  function letKeysScroll() {
    const wide = document.querySelectorAll("mjx-container, .cell_output, .cell_input pre, .highlight pre, .bd-article table");
    for (const box of wide) if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  }
  window.addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(letKeysScroll));

  main();
})();

// The theme gives the arrow that opens a chapter's pages in the sidebar no name: it takes that of the link before it.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".bd-sidebar-primary summary")) {
    summary.ariaLabel = `Pages of ${summary.closest("li").querySelector("a").textContent.trim()}`;
  }
});

// Sphinx's search looks up the place of a result as a CSS selector, in which the dots of a module's name would be classes.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const text = Search.htmlToText;
  Search.htmlToText = (html, anchor) => text(html, anchor && anchor.replace(/\./g, "\\."));
});
