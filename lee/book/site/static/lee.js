// Draws the Vega-Lite charts of a page. Everything it loads lies beside it.
(() => {
  "use strict";
  const here = document.currentScript.src;

  // Specs carry no colour of text or background. In an SVG `currentColor` follows the page, so light mode,
  // dark mode and print need no second drawing.
  const ink = "currentColor";
  const AXIS = 72, ENTRY = 110, SYMBOL = 32; // pixels: of an axis, of an entry of a legend, of what stands beside its words
  const ROUND = 1800; // milliseconds in which a picture that is played turns by a radian of its sine

  const config = (columns) => ({
    background: "transparent",
    padding: { left: 5, top: 5, right: 12, bottom: 5 }, // the last label of an axis may stand out at the right
    // The page's own font: Vega measures words with it to place them, so it has to be a real name.
    font: getComputedStyle(document.body).fontFamily,
    axis: { labelColor: ink, titleColor: ink, domainColor: ink, tickColor: ink, gridColor: ink,
      labelSeparation: 4, labelOpacity: 0.8, domainOpacity: 0.4, tickOpacity: 0.4, gridOpacity: 0.13 },
    legend: { labelColor: ink, titleColor: ink, columns },
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
    stack(spec, host.clientWidth);
    const columns = fit(spec, host.clientWidth);
    const canvas = document.createElement("div");
    canvas.className = "lee-chart-canvas";
    host.append(canvas);
    const options = { mode: "vega-lite", actions: false, renderer: "svg", config: config(columns) };
    await window.vegaEmbed(canvas, spec, options);
    if (spec.usermeta?.turns) letTurn(host, canvas);
    host.dataset.room = host.getBoundingClientRect().width;
    rooms.observe(host);
    host.dataset.state = "drawn";
  }

  // On a phone what stands side by side is laid one below the other, each as wide as the page.
  function stack(spec, room) {
    if (!spec.concat || room >= 600) return;
    spec.columns = 1;
    for (const panel of spec.concat) if (panel.width > room - AXIS) panel.width = room - AXIS;
  }

  // The labels of a logarithmic axis of about a decade, 0.8 and 1.0: Vega alone would write 0.8 and 1.
  function evenDecimals(channel) {
    const [low, high] = [0, 1].map((end) => `domain('${channel}')[${end}]`);
    const decimals = `max(0, ceil(-log(${low}) / LN10 - 0.05), ceil(-log((${high} - ${low}) / 5) / LN10 - 0.3))`;
    return `datum.label && ${high} < 12 * ${low} ? format(datum.value, '.' + ${decimals} + 'f') : datum.label`;
  }

  // Words that don't fit are cut: a title that is longer than its axis is broken into lines. Returns the columns of a legend.
  function fit(spec, room) {
    const pen = document.createElement("canvas").getContext("2d");
    const measure = (words, size) => {
      pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
      return pen.measureText(words).width;
    };
    const broken = (words, size, width) => {
      const lines = [""];
      for (const word of words.split(" ")) {
        const line = `${lines.at(-1)} ${word}`.trim();
        if (measure(line, size) <= width) lines[lines.length - 1] = line;
        else lines.push(word);
      }
      return lines;
    };
    const encodings = [], notes = [];
    const collect = (part) => {
      if (part.encoding) encodings.push(part.encoding);
      const written = part.mark?.type === "text" && part.encoding.x?.value !== undefined && part.encoding.text?.field;
      if (written && spec.datasets?.[part.data?.name]) notes.push(part);
      for (const inner of part.layer ?? []) collect(inner);
    };
    collect(spec);
    const longest = (lists, size) => Math.max(0, ...lists.flat().map((words) => measure(String(words), size)));
    const rows = longest(encodings.map(({ y }) => (Array.isArray(y?.sort) ? y.sort : [])), 12);
    const axis = room - Math.max(AXIS, 20 + Math.min(160, rows));
    for (const { x } of encodings) {
      if (typeof x?.title === "string" && measure(x.title, 13) > axis) x.title = broken(x.title, 13, axis);
    }
    for (const { data, encoding, mark } of notes) { // words that stand at a fixed place of the chart
      mark.lineBreak = "\n";
      const field = encoding.text.field;
      for (const row of spec.datasets[data.name]) row[field] = broken(row[field], mark.fontSize, axis - encoding.x.value).join("\n");
    }
    for (const channel of ["x", "y"]) {
      for (const { [channel]: one } of encodings) {
        if (one?.scale?.type === "log" && one.axis && !one.axis.labelExpr) one.axis.labelExpr = evenDecimals(channel);
      }
    }
    const named = ["color", "shape", "strokeDash"];
    const entries = longest(encodings.flatMap((e) => named.map((c) => (e[c]?.legend === null ? [] : (e[c]?.scale?.domain ?? [])))), 12);
    return Math.max(1, Math.floor(axis / (SYMBOL + (entries || ENTRY)))); // a legend begins where the axis does
  }

  // A chart of pictures that turn: its slider can be played, and the pictures themselves can be taken and turned.
  function letTurn(host, canvas) {
    const slider = canvas.querySelector("input[type=range]");
    const [low, high] = [Number(slider.min), Number(slider.max)];
    const set = (angle) => {
      slider.value = Math.min(high, Math.max(low, angle));
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    };
    host.classList.add("lee-turns");

    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-primary lee-play";
    let frame = 0;
    const stop = () => { cancelAnimationFrame(frame); frame = 0; button.textContent = "▶ Play"; };
    const play = () => {
      button.textContent = "❚❚ Pause";
      const amplitude = (high - low) / 2, middle = (high + low) / 2;
      // From where the slider stands, forth and back.
      const start = performance.now() - Math.asin((Number(slider.value) - middle) / amplitude) * ROUND;
      const step = (now) => { set(middle + amplitude * Math.sin((now - start) / ROUND)); frame = requestAnimationFrame(step); };
      frame = requestAnimationFrame(step);
    };
    button.addEventListener("click", () => (frame ? stop() : play()));
    slider.addEventListener("pointerdown", stop);
    slider.addEventListener("keydown", stop);
    stop();
    slider.closest(".vega-bindings").prepend(button);

    let held = null;
    const bearing = (event) => (Math.atan2(event.clientY - held.y, event.clientX - held.x) * 180) / Math.PI;
    canvas.addEventListener("pointerdown", (event) => {
      const picture = event.target.closest("image");
      if (!picture) return;
      stop();
      const { left, top, width, height } = picture.getBoundingClientRect();
      held = { x: left + width / 2, y: top + height / 2, angle: Number(slider.value) };
      held.last = bearing(event);
      canvas.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      const now = bearing(event);
      held.angle += ((now - held.last + 540) % 360) - 180; // the short way round
      held.last = now;
      set(held.angle);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
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

  // Paper is white: a page in dark mode is printed as in light mode, code and all. And nobody can unfold on it.
  const root = document.documentElement;
  let before = null, folded = [];
  window.matchMedia("print").addEventListener("change", (paper) => {
    if (paper.matches) {
      before = root.dataset.theme;
      folded = [...document.querySelectorAll(".bd-article details:not([open])")];
    }
    root.dataset.theme = paper.matches ? "light" : before;
    for (const one of folded) one.open = paper.matches;
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

// "On this page" marks the section that is read, up to the end of the page. The theme marks a heading when it enters the upper
// third of the window, which the last ones never do; without the name by which it looks for the list, it leaves it to us.
(() => {
  const nav = document.getElementById("pst-page-toc-nav");
  if (!nav) return;
  nav.id = "";
  const HELD = 1000, UPPER = 0.3; // milliseconds for which a section that was asked for stays marked; part of the window
  const links = [...nav.querySelectorAll("a[href^='#']")], entries = [...nav.querySelectorAll(".toc-entry")];
  const places = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  const headings = places.map((place) => place?.querySelector(":is(h1, h2, h3, h4, h5, h6)") ?? place);
  let current = null, until = 0;

  function show(link) {
    if (link === current) return;
    for (const one of links) {
      one.classList.toggle("active", one === link);
      if (one === link) one.setAttribute("aria-current", "true");
      else one.removeAttribute("aria-current");
    }
    for (const entry of entries) entry.classList.toggle("active", entry.contains(link));
    current = link;
    const box = nav.closest(".bd-sidebar-secondary");
    if (!link || !box || box.scrollHeight <= box.clientHeight) return;
    const [inner, outer] = [link.getBoundingClientRect(), box.getBoundingClientRect()];
    box.scrollTop += Math.max(0, inner.bottom - outer.bottom + 40) + Math.min(0, inner.top - outer.top - 40);
  }

  function follow() {
    if (performance.now() < until) return;
    const { clientHeight, scrollHeight, scrollTop } = document.documentElement;
    // The line where reading happens goes down with what is left of the page.
    const line = Math.max(UPPER * clientHeight, clientHeight - (scrollHeight - clientHeight - scrollTop));
    const above = headings.map((heading) => heading?.checkVisibility() && heading.getBoundingClientRect().top <= line);
    show(links[above.lastIndexOf(true)] ?? null);
  }

  function ask() {
    const link = links.find(({ hash }) => hash && hash === window.location.hash);
    if (!link) return;
    until = performance.now() + HELD;
    show(link);
  }

  for (const event of ["scroll", "resize", "load"]) window.addEventListener(event, follow, { passive: true });
  document.addEventListener("toggle", follow, true);
  window.addEventListener("hashchange", ask);
  nav.addEventListener("click", () => setTimeout(ask));
  ask();
})();

// Definitions and references over links (`lee.book.site.hover`): for a pointer, for the keyboard, and for a finger, whose first
// tap shows and whose second one follows the link.
window.addEventListener("load", () => {
  for (const link of document.querySelectorAll(".bd-article a.reference.internal[title]")) {
    if (!/(glossary|bibliography)\.html#/.test(link.href)) continue;
    const shown = new window.bootstrap.Tooltip(link, { customClass: "lee-definition", delay: { show: 150, hide: 50 } });
    link.addEventListener("click", (event) => {
      if (event.pointerType !== "touch" || link.hasAttribute("aria-describedby")) return;
      event.preventDefault();
      shown.show();
    });
  }
});
