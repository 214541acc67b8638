"use strict";
// The table of all cases: made from the columns in #data, filtered and sorted, drawn a hundred rows at a time. Whatever came from a
// run is set as text, never as markup. The filters live in the address, after `#`, so that a link shows what its sender saw.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const PIECE = 100, PRINTED = 500, ID = "\u0001";
  const FAILED = ["fail", "fail-claimed", "crash", "hang"];
  const CLAIMS = ["unknown", "claimed", "taken", "none"];
  const CLAIM_WORDS = ["contract", "claimed", "taken", "not claimed"];
  const TONES = { P: "good p", F: "bad f", C: "bad c", H: "bad h", X: "warn x", "~": "warn y", W: "warn w", S: "plain s", U: "quiet u" };
  const LETTER_OF = { pass: "P", fail: "F", skip: "S", "fail-claimed": "F", waived: "X", crash: "C", hang: "H", flaky: "~", "quality-warning": "W" };
  root.classList.add("script");

  // Columns back to cases.
  const ids = new Array(data.count), category = new Array(data.count);
  for (let i = 0, before = ""; i < data.count; i++) {
    before = before.slice(0, data.ids[2 * i]) + data.ids[2 * i + 1];
    ids[i] = before;
  }
  let at = 0;
  for (const [name, n] of data.categories) for (let k = 0; k < n; k++) category[at++] = name;
  const text = (column, i) => data.texts[data[column][i]].split(ID).join(ids[i]);
  const verdict = (i) => data.verdicts[data.verdict.charCodeAt(i) - 48];
  const letters = Array.from(data.letter);
  const claim = (i) => data.claim.charCodeAt(i) - 48;
  const extra = (i) => data.extra[i] || {};
  const tone = (i) => (letters[i] === "S" && claim(i) === 1 ? "warn s" : TONES[letters[i]]);
  const sought = new Array(data.count);
  const words = (i) => (sought[i] ??= (ids[i] + " " + text("op", i) + " " + text("dtype", i) + " " + text("reason", i)).toLowerCase());

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const mark = (letter, classes) => make("span", { class: "g " + classes, "aria-hidden": "true" }, letter);
  const number = (value) => {
    if (typeof value !== "number") return String(value);
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e-3 && size < 1e6 ? String(+value.toPrecision(3)) : value.toExponential(2).replace("e+", "e");
  };
  const size = (value) => (typeof value === "number" ? value : Infinity);

  // What is shown, and how the address says it.
  const empty = () => ({ v: [], c: [], k: [], q: "", o: "", d: "", sort: "" });
  let state = empty();
  const read = () => {
    state = empty();
    for (const part of location.hash.slice(1).split("&")) {
      const equals = part.indexOf("=");
      const key = part.slice(0, equals);
      if (equals < 0 || !Object.hasOwn(state, key)) continue;
      let value = part.slice(equals + 1);
      try { value = decodeURIComponent(value); } catch { continue; }
      state[key] = Array.isArray(state[key]) ? value.split(",").filter(Boolean) : value;
    }
  };
  const write = () => {
    const parts = [];
    for (const [key, value] of Object.entries(state)) {
      const flat = Array.isArray(value) ? value.map(encodeURIComponent).join(",") : encodeURIComponent(value);
      if (flat) parts.push(key + "=" + flat);
    }
    history.replaceState(null, "", parts.length ? "#" + parts.join("&") : location.pathname + location.search);
  };
  const wanted = (i) => {
    const parts = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    return (!state.v.length || state.v.includes(verdict(i))) && (!state.c.length || state.c.includes(category[i])) &&
      (!state.k.length || state.k.includes(CLAIMS[claim(i)])) && (!state.o || (text("op", i) === state.o && category[i] !== "performance")) &&
      (!state.d || text("dtype", i) === state.d) && parts.every((part) => words(i).includes(part));
  };

  const COLUMNS = [
    { key: "verdict", name: "Verdict", class: "v", of: (i) => "CHF~XWPSU".indexOf(letters[i]) },
    { key: "case", name: "Case", class: "i", of: (i) => ids[i] },
    { key: "dtype", name: "Dtype", class: "t", of: (i) => text("dtype", i) },
    { key: "claim", name: "Claim", class: "k2", of: (i) => CLAIM_WORDS[claim(i)] },
    { key: "max_abs", name: "max_abs", class: "n", of: (i) => size(data.max_abs[i]) },
    { key: "ms", name: "ms", class: "n t", of: (i) => size(data.total_ms[i]) },
    { key: "reason", name: "Reason", class: "d", of: (i) => text("reason", i) },
  ];

  // The furniture.
  const search = make("input", { type: "search", id: "q", placeholder: "Filter by words: softmax f16 rounding", "aria-label": "Filter by words", autocomplete: "off",
    oninput: () => { state.q = search.value; update(); } });
  const select = make("select", { "aria-label": "Category", onchange: () => { state.c = select.value ? [select.value] : []; update(); } },
    make("option", { value: "" }, "every category"), ...data.categories.map(([name, n]) => make("option", { value: name }, name + " (" + n + ")")));
  const several = make("option", { value: "*", hidden: "", disabled: "" }, "several categories");
  select.append(several);
  const chips = make("div", { class: "chips", role: "group", "aria-label": "Verdicts" });
  const totals = {};
  for (let i = 0; i < data.count; i++) totals[verdict(i)] = (totals[verdict(i)] || 0) + 1;
  const chip = new Map();
  for (const name of data.verdicts) {
    if (!totals[name]) continue;
    const letter = LETTER_OF[name];
    const button = make("button", { type: "button", "aria-pressed": "false", onclick: () => {
      state.v = state.v.includes(name) ? state.v.filter((other) => other !== name) : [...state.v, name];
      update();
    } }, mark(letter, TONES[letter]), name + " " + totals[name]);
    chip.set(name, button);
    chips.append(button);
  }
  const said = make("span", { role: "status", "aria-live": "polite" });
  const clear = make("button", { type: "button", onclick: () => { state = { ...empty(), sort: state.sort }; update(); search.focus(); } }, "Show all");
  const tsv = make("button", { type: "button", onclick: () => copy(asTsv(), tsv) }, "Copy as TSV");
  const heads = COLUMNS.map((column) => make("th", { scope: "col", class: column.class }, make("button", { type: "button", onclick: () => {
    const [key, down] = [state.sort.replace("-", ""), state.sort.startsWith("-")];
    state.sort = key !== column.key ? (column.class.startsWith("n") ? "-" : "") + column.key : down === column.class.startsWith("n") ? (down ? "" : "-") + column.key : "";
    update();
  } }, column.name)));
  const body = make("tbody");
  const table = make("table", { id: "list" }, make("caption", { class: "off" }, "Cases, filtered and sorted. The button in the first column unfolds a case."),
    make("thead", {}, make("tr", {}, ...heads)), body);
  const more = make("button", { type: "button", class: "more-button", onclick: () => {
    const first = body.rows.length;
    draw(PIECE);
    body.rows[first]?.querySelector("button")?.focus();
  } });
  document.getElementById("explorer").append(make("div", { class: "filters" }, search, select), chips,
    make("div", { class: "status" }, said, clear, tsv), make("div", { class: "scroll" }, table), more);

  let shown = [], drawn = 0;
  const draw = (count) => {
    const piece = document.createDocumentFragment();
    for (const i of shown.slice(drawn, drawn + count)) piece.append(row(i));
    drawn = Math.min(drawn + count, shown.length);
    body.append(piece);
    more.hidden = drawn === shown.length;
    more.textContent = "Show more (" + (shown.length - drawn) + " left)";
  };
  // Lines break after the parts of an id, if they can.
  const breakable = (id) => id.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")]);
  const row = (i) => {
    const unfold = make("button", { type: "button", "aria-expanded": "false" }, mark(letters[i], tone(i)), verdict(i));
    const line = make("tr", { "data-case": i }, make("td", { class: "v" }, unfold), make("td", { class: "i" }, make("code", {}, ...breakable(ids[i]))),
      make("td", { class: "t" }, text("dtype", i)), make("td", { class: "k2" }, CLAIM_WORDS[claim(i)]),
      make("td", { class: "n" }, data.max_abs[i] === 0 && !text("tolerance", i) ? "" : number(data.max_abs[i])),
      make("td", { class: "n t" }, number(data.total_ms[i])), make("td", { class: "d" }, make("span", {}, text("reason", i))));
    unfold.addEventListener("click", () => {
      const open = unfold.getAttribute("aria-expanded") === "true";
      unfold.setAttribute("aria-expanded", String(!open));
      if (open) line.nextSibling.remove();
      else line.after(make("tr", { class: "more" }, make("td", { colspan: COLUMNS.length }, ...details(i))));
    });
    return line;
  };
  const details = (i) => {
    const parts = [], facts = [], more = extra(i);
    const fact = (name, value) => { facts.push(facts.length ? " · " : "", name + " ", make("b", {}, value)); };
    if (text("reason", i)) parts.push(make("p", {}, text("reason", i)));
    if (text("tolerance", i)) {
      fact("max_abs", number(data.max_abs[i]));
      fact("max_rel", number(data.max_rel[i]));
      fact("tolerance", text("tolerance", i));
    }
    if (text("shapes", i)) fact("shapes", text("shapes", i));
    fact("claim", CLAIM_WORDS[claim(i)]);
    for (const [key, name] of [["snr_db", "snr dB"], ["p50_us", "p50 µs"], ["p95_us", "p95 µs"]]) if (key in more) fact(name, number(more[key]));
    if (typeof more.peak_bytes === "number") fact("peak", (more.peak_bytes / 1e6).toFixed(1) + " MB");
    for (const [name, value] of Object.entries(more.measured || {})) fact(name, number(value));
    const link = bundle(more.bundle);
    if (link) facts.push(" · ", make("a", { href: link }, "bundle"));
    parts.push(make("p", { class: "facts" }, ...facts));
    if (text("repro", i)) {
      const block = make("pre", { class: "repro" }, make("code", {}, text("repro", i)));
      copyable(block);
      parts.push(block);
    }
    if (data.cut) parts.push(make("p", { class: "hint" }, "Texts are shortened to keep this page small; cases.jsonl has them whole."));
    return parts;
  };
  // Only what the runner writes is a link: a folder below bundles/.
  const bundle = (path) => {
    const parts = (path || "").split("/");
    const plain = parts[0] === "bundles" && parts.length > 1 && parts.every((part) => part && part !== "." && part !== "..");
    return plain ? parts.map(encodeURIComponent).join("/") + "/" : null;
  };
  const update = () => {
    write();
    shown = [];
    for (let i = 0; i < data.count; i++) if (wanted(i)) shown.push(i);
    // Without a choice the worst come first.
    const column = COLUMNS.find((column) => column.key === state.sort.replace("-", ""));
    if (!column) shown.sort((a, b) => COLUMNS[0].of(a) - COLUMNS[0].of(b) || a - b);
    else {
      const way = state.sort.startsWith("-") ? -1 : 1;
      const keys = new Map(shown.map((i) => [i, column.of(i)]));
      shown.sort((a, b) => { const [x, y] = [keys.get(a), keys.get(b)]; return x < y ? -way : x > y ? way : a - b; });
    }
    heads.forEach((head, n) => {
      if (COLUMNS[n] === column) head.setAttribute("aria-sort", state.sort.startsWith("-") ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    if (document.activeElement !== search) search.value = state.q;
    select.value = state.c.length > 1 ? "*" : state.c[0] || "";
    for (const [name, button] of chip) button.setAttribute("aria-pressed", String(state.v.includes(name)));
    const told = [];
    if (state.o) told.push(state.o);
    if (state.d) told.push(state.d);
    for (const name of state.k) told.push(CLAIM_WORDS[CLAIMS.indexOf(name)] || name);
    said.textContent = shown.length + " of " + data.count + " cases" + (told.length ? ": " + told.join(", ") : "");
    clear.hidden = !(state.v.length || state.c.length || state.k.length || state.q || state.o || state.d);
    body.replaceChildren();
    drawn = 0;
    draw(PIECE);
    choose();
  };

  const asTsv = () => {
    const clean = (value) => String(value).replace(/[\t\r\n]+/g, " ");
    const lines = [["verdict", "case", "category", "operator", "dtype", "claim", "max_abs", "max_rel", "tolerance", "ms", "reason", "repro"]];
    for (const i of shown) {
      lines.push([verdict(i), ids[i], category[i], text("op", i), text("dtype", i), CLAIM_WORDS[claim(i)], data.max_abs[i], data.max_rel[i], text("tolerance", i), data.total_ms[i],
        text("reason", i), text("repro", i)]);
    }
    return lines.map((line) => line.map(clean).join("\t")).join("\n") + "\n";
  };
  const copy = async (what, button) => {
    const before = button.textContent;
    let done = true;
    try {
      await navigator.clipboard.writeText(what);
    } catch {
      // Some browsers give a page from a file no clipboard: the old way works there.
      const area = make("textarea", { class: "off", "aria-hidden": "true" });
      area.value = what;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  const copyable = (block) => {
    const button = make("button", { type: "button", "aria-label": "Copy the command" }, "Copy");
    button.addEventListener("click", () => copy(block.querySelector("code").textContent, button));
    block.append(button);
  };
  document.querySelectorAll("pre.repro").forEach(copyable);

  // The grid: one stop of the Tab key, arrows inside, Enter shows the cases of a cell.
  const matrix = document.getElementById("matrix");
  let choose = () => {};
  if (matrix) {
    const names = Array.from(matrix.tHead.rows[0].cells, (cell) => cell.textContent);
    const rows = () => Array.from(matrix.tBodies[0].rows).filter((line) => !line.hidden);
    matrix.setAttribute("role", "grid");
    const LONG = { P: "pass", F: "fail", C: "crash", H: "hang", X: "waived", "~": "flaky", W: "quality warning", S: "skipped", U: "not claimed" };
    for (const line of matrix.tBodies[0].rows) {
      for (const cell of Array.from(line.cells).slice(1)) {
        const letter = cell.querySelector(".g")?.textContent, part = cell.querySelector("small")?.textContent;
        const untested = (letter === "S" || letter === "P") && cell.querySelector(".warn");
        const beyond = cell.classList.contains("k") ? ", taken beyond the claims" : "";
        const says = letter ? LONG[letter] + (part ? ", " + part + " passed" : "") + beyond + (untested ? ", claimed cases were not run" : "") : "no case";
        cell.setAttribute("role", "gridcell");
        cell.setAttribute("tabindex", "-1");
        cell.setAttribute("aria-label", line.cells[0].textContent + ", " + names[cell.cellIndex] + ": " + says);
        cell.title = cell.getAttribute("aria-label");
      }
    }
    let stop = null;
    const enter = (cell, focus = true) => {
      stop?.setAttribute("tabindex", "-1");
      stop = cell;
      stop?.setAttribute("tabindex", "0");
      if (focus) stop?.focus();
    };
    enter(rows()[0]?.cells[1], false);
    const show = (cell) => {
      const [op, dtype] = [cell.parentElement.cells[0].textContent, names[cell.cellIndex]];
      const same = state.o === op && state.d === dtype;
      state = { ...empty(), sort: state.sort, o: same ? "" : op, d: same ? "" : dtype };
      update();
      if (!same) document.getElementById("cases").scrollIntoView();
    };
    matrix.addEventListener("keydown", (event) => {
      const cell = event.target.closest("td");
      if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
      const lines = rows(), y = lines.indexOf(cell.parentElement), x = cell.cellIndex, last = names.length - 1;
      const to = { ArrowRight: [y, Math.min(x + 1, last)], ArrowLeft: [y, Math.max(x - 1, 1)], ArrowDown: [Math.min(y + 1, lines.length - 1), x], ArrowUp: [Math.max(y - 1, 0), x],
        Home: [y, 1], End: [y, last], PageDown: [Math.min(y + 10, lines.length - 1), x], PageUp: [Math.max(y - 10, 0), x] }[event.key];
      if (to) enter(lines[to[0]].cells[to[1]]);
      else if (event.key === "Enter" || event.key === " ") show(cell);
      else return;
      event.preventDefault();
    });
    matrix.addEventListener("click", (event) => {
      const cell = event.target.closest("td");
      if (cell) { enter(cell); show(cell); }
    });
    choose = () => {
      matrix.querySelector(".on")?.classList.remove("on");
      if (!state.o || !state.d) return;
      const line = Array.from(matrix.tBodies[0].rows).find((line) => line.cells[0].textContent === state.o);
      line?.cells[names.indexOf(state.d)]?.classList.add("on");
    };
    const only = document.getElementById("grid-bad");
    only.addEventListener("change", () => {
      for (const line of matrix.tBodies[0].rows) line.hidden = only.checked && !line.querySelector(".bad,.warn");
      if (!stop || stop.parentElement.hidden) enter(rows()[0]?.cells[1], false);
    });
  }

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { search.focus(); event.preventDefault(); }
    if (event.key === "Escape" && event.target === search) { search.value = ""; state.q = ""; update(); }
  });
  // Print shows what is filtered, up to some hundreds of rows, and unfolded failures.
  const folded = () => Array.from(document.querySelectorAll("details"));
  addEventListener("beforeprint", () => {
    folded().forEach((details) => { details.dataset.was = details.open; details.open = true; });
    if (drawn < PRINTED) draw(PRINTED - drawn);
  });
  addEventListener("afterprint", () => folded().forEach((details) => { details.open = details.dataset.was === "true"; }));
  addEventListener("hashchange", () => {
    if (location.hash.length > 1 && !location.hash.includes("=")) return;
    read();
    update();
    if (location.hash.length > 1) document.getElementById("cases").scrollIntoView();
  });
  if (location.hash.includes("=")) read();
  if ("IntersectionObserver" in window) {
    new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting) && !more.hidden && drawn) draw(PIECE); }, { rootMargin: "300px" }).observe(more);
  }
  update();
})();
