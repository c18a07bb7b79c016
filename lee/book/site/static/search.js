// What the search finds, in which order, and what it shows of a page. Sphinx reads this (`html_search_scorer`) after its own
// searchtools.js and before its index: words are looked up whole, as their stems; chapters come before the API reference.
// (The code before this one ends without a semicolon.)
;(() => {
  "use strict";
  const IN_PAGE_TITLE = 6, IN_SECTION_TITLE = 3, IN_TEXT = 1; // points of a word
  const MOST = 12, EXCERPT = 240, BEFORE = 90; // results; letters of an excerpt, and of it before the first word found
  const REFERENCE = /^book\/(api|status|bibliography$)/; // an entry of the bibliography is found by its title
  const NOT_PROSE = "script, style, noscript, .headerlink, .cell_input, .toc, nav, .lee-reading, .lee-chart, summary, .caption-number";
  const WORD = /([\p{Letter}\p{Number}_]+)/u;

  const stemmer = new Stemmer();
  const asked = (word) => word.length > 1 && !/^\d+$/.test(word) && !stopwords.includes(word);
  const stems = (text) => splitQuery(text.replace(/<[^>]*>/g, "").toLowerCase()).filter(asked).map((word) => stemmer.stemWord(word));
  // lee.statistics.EquivarianceGram is found by each of its words.
  const parts = (name) => stems(name.replace(/[._]/g, " ").replace(/([a-z])([A-Z])/g, "$1 $2"));
  const share = (wanted, words) => wanted.filter((word) => words.includes(word)).length / wanted.length;

  // Points of a title that holds all words: the more, the fewer others it has.
  const entitled = (wanted, words) => (share(wanted, words) < 1 ? 0 : (IN_PAGE_TITLE * wanted.length ** 2) / words.length);

  function pages(wanted, query) {
    const { alltitles, docnames, filenames, terms, titles, titleterms } = Search._index;
    const files = (places, word) => (Object.hasOwn(places, word) ? [places[word]].flat() : []);
    const found = titles.map((title) => ({ points: 0, words: 0, title: stems(title) }));
    for (const word of wanted) {
      const [text, headings] = [files(terms, word), files(titleterms, word)];
      for (const file of new Set([...text, ...headings])) {
        const inTitle = headings.includes(file) ? IN_SECTION_TITLE : IN_TEXT;
        found[file].points += found[file].title.includes(word) ? IN_PAGE_TITLE : inTitle;
        found[file].words += 1;
      }
    }
    // Of one stem (transformation, transformer), the word that was asked for.
    const verbatim = splitQuery(query.toLowerCase()).filter(asked);
    for (const [title, places] of Object.entries(alltitles)) {
      const bonus = verbatim.filter((word) => splitQuery(title.toLowerCase()).some((one) => one.startsWith(word))).length;
      for (const [file] of places) found[file].points += bonus / 100;
    }
    return found.flatMap(({ points, words, title }, file) => (words === 0 || 2 * words < wanted.length ? []
      : [[docnames[file], titles[file], "", null, points + entitled(wanted, title) + 1, filenames[file]]]));
  }

  function sections(wanted) {
    const { alltitles, docnames, filenames, titles } = Search._index;
    return Object.entries(alltitles).flatMap(([title, places]) => {
      const points = entitled(wanted, stems(title));
      const inside = points > 0 ? places.filter(([, id]) => id !== null) : [];
      return inside.map(([file, id]) => [docnames[file], `${titles[file]} › ${title}`, `#${id}`, null,
        IN_SECTION_TITLE * wanted.length + points, filenames[file]]);
    });
  }

  function objects(query) {
    const wanted = parts(query), isCode = /[._]|[a-z][A-Z]/.test(query);
    const terms = new Set(splitQuery(query.toLowerCase()).filter(asked));
    const found = terms.size ? Search.performObjectSearch([...terms][0], terms) : [];
    return found.filter(([, name]) => share(wanted, parts(name)) === 1).map(([file, name, anchor, about, , filename]) => {
      const named = isCode && `.${name}`.toLowerCase().endsWith(`.${query.toLowerCase().split(".").at(-1)}`);
      return [file, name, anchor, about, named ? 1000 : IN_SECTION_TITLE * wanted.length, filename];
    });
  }

  Search._performSearch = (query, terms) => {
    const wanted = [...terms];
    if (wanted.length === 0) return [];
    const parts = sections(wanted), within = new Set(parts.map(([docname]) => docname));
    const whole = pages(wanted, query).filter(([docname, title]) => !within.has(docname) || share(wanted, stems(title)) === 1);
    const found = [...whole, ...parts, ...objects(query.trim())];
    for (const one of found) if (REFERENCE.test(one[0] + one[2])) one[4] -= 100;
    const place = ([docname]) => docname.replace("index", "00"); // of equals, the one that is read first
    found.sort((a, b) => b[4] - a[4] || place(a).localeCompare(place(b)));
    return found.slice(0, MOST).reverse(); // Sphinx shows the last one first
  };

  // Sphinx would mark the letters of a word inside of others, too: the excerpts mark their words themselves.
  const parse = Search._parseQuery;
  let phrase = "";
  Search._parseQuery = (query) => {
    phrase = query.trim().toLowerCase();
    const [text, terms, excluded] = parse(query);
    return [text, new Set([...terms].filter((word) => word.length > 1)), excluded, new Set(), new Set()];
  };

  Search.makeSearchSummary = (html, terms, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    for (const part of page.querySelectorAll(NOT_PROSE)) part.remove();
    for (const formula of page.querySelectorAll(".math")) {
      const tex = formula.textContent.replace(/^\\[([]|\\[)\]]$/g, "").trim();
      formula.textContent = /[\\_^]/.test(tex) ? "…" : tex;
    }
    const start = anchor ? page.getElementById(anchor.slice(1)) : null;
    const place = start?.closest("section, dd") ?? page.querySelector("article");
    const texts = [...place.querySelectorAll("p, figcaption, pre, li, td")].filter((one) => !one.querySelector("p, li, pre"));
    const wanted = [...terms];
    const rated = texts.map((one) => one.textContent.replace(/\s+/g, " ").trim()).filter(Boolean)
      .map((text) => ({ text, points: share(wanted, stems(text)) + text.toLowerCase().includes(phrase) }));
    if (rated.length === 0) return null;
    const { text } = rated.reduce((best, one) => (one.points > best.points ? one : best));

    const pieces = text.split(WORD); // words at odd places
    const isFound = (piece, i) => i % 2 === 1 && terms.has(stemmer.stemWord(piece.toLowerCase()));
    let first = Math.max(0, pieces.findIndex(isFound)), room = BEFORE;
    while (first > 0 && (room -= pieces[first - 1].length) > 0) first -= 1;
    const excerpt = document.createElement("p");
    excerpt.className = "context";
    if (first > 0) excerpt.append("… ");
    let last = first;
    for (room = EXCERPT; last < pieces.length && (room -= pieces[last].length) > 0; last += 1) {
      const part = isFound(pieces[last], last) ? document.createElement("span") : null;
      if (part) { part.className = "highlighted"; part.textContent = pieces[last]; }
      excerpt.append(part ?? pieces[last]);
    }
    if (last < pieces.length) excerpt.append(" …");
    return excerpt;
  };
})();
