"use strict";
// Three small parts: the state in the URL hash, sorting, and the charts. Numbers are formatted by the report, not here.
(() => {
  const root = document.documentElement;
  const radios = [...document.querySelectorAll("input[name=selection]")];
  const boards = new Map([...document.querySelectorAll("table.board")].map((table) => [table.dataset.section, table]));
  const DEFAULT = { selection: root.dataset.selection, column: "rank", direction: "ascending" };
  const state = { selection: DEFAULT.selection, sorts: new Map() }; // section -> {column, direction}

  // ---- State <-> hash: #selection=best_val&sort=<section>:<column>:<direction>. Other hashes are plain anchors.
  function readHash() {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return false;
    const given = new URLSearchParams(hash);
    const rule = given.get("selection");
    state.selection = radios.some((radio) => radio.value === rule) ? rule : DEFAULT.selection;
    state.sorts.clear();
    for (const text of given.getAll("sort")) {
      const [section, column, direction] = text.split(":");
      if (headerOf(boards.get(section), column) && ["ascending", "descending"].includes(direction)) {
        state.sorts.set(section, { column, direction });
      }
    }
    return true;
  }

  function writeHash() {
    const given = new URLSearchParams();
    if (state.selection !== DEFAULT.selection) given.set("selection", state.selection);
    for (const [section, { column, direction }] of state.sorts) given.append("sort", `${section}:${column}:${direction}`);
    const hash = given.toString().replaceAll("%3A", ":");
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function apply() {
    root.dataset.selection = state.selection;
    for (const radio of radios) radio.checked = radio.value === state.selection;
    for (const [section, table] of boards) sort(table, state.sorts.get(section) ?? DEFAULT);
    for (const chart of charts) chart.draw();
  }

  // ---- Sorting: on the mean at the chosen rule; rows without a value stay last; equal rows keep the report's order.
  function headerOf(table, column) {
    return [...(table?.tHead.rows[0].cells ?? [])].find((cell) => cell.querySelector("button").dataset.column === column);
  }

  function keyOf(cell) {
    if (cell.dataset.text !== undefined) return cell.dataset.text.toLowerCase();
    const holder = cell.dataset.value !== undefined ? cell : cell.querySelector(`[data-rule="${state.selection}"]`);
    return holder?.dataset.value === undefined ? null : Number(holder.dataset.value);
  }

  function sort(table, { column, direction }) {
    const header = headerOf(table, column);
    const sign = direction === "ascending" ? 1 : -1;
    table.originalRows ??= [...table.tBodies[0].rows];
    const keyed = table.originalRows.map((row) => [keyOf(row.cells[header.cellIndex]), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return a < b ? -sign : a > b ? sign : 0;
    });
    table.tBodies[0].append(...keyed.map(([, row]) => row));
    for (const cell of header.parentElement.cells) cell.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
  }

  function onSort(table, button) {
    const { column, first } = button.dataset;
    const now = button.closest("th").getAttribute("aria-sort");
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = now === first ? other : first;
    state.sorts.set(table.dataset.section, { column, direction });
    if (column === DEFAULT.column && direction === DEFAULT.direction) state.sorts.delete(table.dataset.section);
    sort(table, { column, direction });
    writeHash();
    document.querySelector(".announce").textContent = `Sorted by ${button.firstChild.textContent.trim()}, ${direction}`;
  }

  // ---- Charts
  const MARKERS = [
    "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z", // circle
    "M-3.6-3.6H3.6V3.6H-3.6Z", // square
    "M0-5 4.6 3.4H-4.6Z", // triangle
    "M0-5.2 5.2 0 0 5.2-5.2 0Z", // diamond
    "M0 5 4.6-3.4H-4.6Z", // triangle down
    "M-1.6-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z", // plus
  ];
  const SHOWN_AT_FIRST = MARKERS.length;

  function svg(name, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function html(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  const styleOf = (index) => ({
    colour: `s${index % MARKERS.length}`,
    dash: `dash${Math.floor(index / MARKERS.length) % 4}`,
    marker: MARKERS[index % MARKERS.length],
  });
  const round = (value) => Math.round(value * 10) / 10;
  const images = (count) => `${count.toLocaleString("en")} training image${count === 1 ? "" : "s"}`;

  class Chart {
    constructor(figure) {
      this.data = JSON.parse(figure.querySelector("script").textContent);
      this.plot = figure.querySelector(".plot");
      this.details = figure.querySelector("details");
      this.shown = new Set(this.data.series.slice(0, SHOWN_AT_FIRST).map((one) => one.key));
      this.data.series.forEach((one, index) => figure.querySelector(".legend").append(this.legendItem(one, index)));
      this.details.addEventListener("toggle", () => this.fillTable());
      this.width = 0;
      new ResizeObserver(() => this.plot.clientWidth !== this.width && this.draw()).observe(this.plot);
    }

    legendItem(one, index) {
      const { colour, dash, marker } = styleOf(index);
      const swatch = svg("svg", { viewBox: "-16 -8 32 16", class: colour, "aria-hidden": "true" },
        svg("path", { d: "M-15 0H15", class: `line ${dash}` }), svg("path", { d: marker, class: "marker" }));
      const button = html("button", { type: "button", "aria-pressed": this.shown.has(one.key) }, swatch, one.name);
      button.addEventListener("click", () => {
        if (!this.shown.delete(one.key)) this.shown.add(one.key);
        button.setAttribute("aria-pressed", this.shown.has(one.key));
        this.draw();
      });
      return html("li", {}, button);
    }

    draw() {
      this.width = this.plot.clientWidth;
      const box = { width: Math.max(this.width, 280), height: 320, left: 42, right: 50, top: 42, bottom: 44 };
      const { counts } = this.data;
      const inner = box.width - box.left - box.right;
      this.step = inner / Math.max(counts.length, 1);
      this.x = (index) => box.left + this.step * (index + 0.5);
      this.y = (percent) => box.top + (box.height - box.top - box.bottom) * (1 - percent / 100);
      const picture = svg("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "img", "aria-label": this.label() });
      picture.append(...this.bars(), ...this.axes(box), ...this.groups(box), ...this.lines());
      this.plot.replaceChildren(picture);
      this.fillTable();
    }

    visible() {
      return this.data.series.map((one, index) => ({ ...one, index, points: one.values[state.selection] }))
        .filter((one) => one.points && this.shown.has(one.key));
    }

    label() {
      const names = this.visible().map((one) => one.name).join(", ") || "no method";
      return `Accuracy of each class at ${state.selection} for ${names}. The same numbers stand in the table below.`;
    }

    bars() {
      const top = Math.max(...this.data.counts, 1);
      const wide = this.step * 0.72;
      return this.data.counts.map((count, index) => svg("rect", {
        class: "bar", x: round(this.x(index) - wide / 2), width: round(Math.max(wide, 0.6)),
        y: round(this.y((100 * count) / top)), height: round(this.y(0) - this.y((100 * count) / top)),
      }));
    }

    axes(box) {
      const top = Math.max(...this.data.counts, 1);
      const right = box.width - box.right;
      const parts = [svg("text", { x: 0, y: 12 }, "Accuracy (%)")];
      parts.push(svg("text", { x: box.width, y: 12, "text-anchor": "end" }, "Training images"));
      for (const percent of [0, 25, 50, 75, 100]) {
        const y = round(this.y(percent));
        parts.push(svg("line", { class: "grid", x1: box.left, x2: right, y1: y, y2: y }));
        parts.push(svg("text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, String(percent)));
        const count = Math.round((top * percent) / 100).toLocaleString("en");
        if (percent % 50 === 0) parts.push(svg("text", { x: right + 8, y: y + 4 }, count));
      }
      return [...parts, ...this.ticks(box)];
    }

    ticks(box) {
      const { classes, counts } = this.data;
      const every = Math.max(1, Math.ceil(34 / this.step));
      const parts = [];
      for (let index = 0; index < classes.length; index += every) {
        const at = { x: round(this.x(index)), "text-anchor": "middle" };
        parts.push(svg("text", { ...at, y: box.height - box.bottom + 16 }, String(counts[index])));
      }
      const title = `Classes by training images, ${counts.length} in all`;
      return [...parts, svg("text", { x: box.left + (box.width - box.left - box.right) / 2, y: box.height - 6, "text-anchor": "middle" }, title)];
    }

    groups(box) {
      const { groups } = this.data;
      const parts = [];
      let start = 0;
      for (let end = 1; end <= groups.length; end += 1) {
        if (end < groups.length && groups[end] === groups[start]) continue;
        const middle = (this.x(start) + this.x(end - 1)) / 2;
        if (groups[start]) parts.push(svg("text", { x: round(middle), y: box.top - 8, "text-anchor": "middle" }, groups[start]));
        if (end < groups.length) {
          const x = round(this.x(end) - this.step / 2);
          parts.push(svg("line", { class: "divider", x1: x, x2: x, y1: box.top, y2: box.height - box.bottom }));
        }
        start = end;
      }
      return parts;
    }

    lines() {
      const marked = this.step >= 14; // with many classes markers would hide the lines
      return this.visible().map(({ name, index, points }) => {
        const { colour, dash, marker } = styleOf(index);
        let pen = "M"; // lifted over classes without a test image
        let path = "";
        const group = svg("g", { class: colour });
        points.forEach((percent, at) => {
          if (percent === null) { pen = "M"; return; }
          const [x, y] = [round(this.x(at)), round(this.y(percent))];
          path += `${pen}${x} ${y}`;
          pen = "L";
          if (!marked) return;
          const tip = `${name}, class ${this.data.classes[at]} (${images(this.data.counts[at])}): ${percent.toFixed(1)} %`;
          group.append(svg("path", { d: marker, class: "marker", transform: `translate(${x} ${y})` }, svg("title", {}, tip)));
        });
        group.prepend(svg("path", { d: path || "M0 0", class: `line ${dash}` }));
        return group;
      });
    }

    fillTable() {
      if (!this.details.open) return;
      const all = this.data.series.map((one) => ({ name: one.name, points: one.values[state.selection] }));
      const header = (title, kind = "number") => html("th", { scope: "col", class: kind }, title);
      const head = html("tr", {}, header("Class", ""), header("Training images"), header("Group", ""),
        ...all.map((one) => header(one.name)));
      const rows = this.data.classes.map((name, at) => html("tr", {}, html("th", { scope: "row" }, String(name)),
        html("td", { class: "number" }, String(this.data.counts[at])), html("td", {}, this.data.groups[at]),
        ...all.map(({ points }) => html("td", { class: "number" }, points?.[at]?.toFixed(1) ?? "-"))));
      const caption = html("caption", {}, html("span", {}, `Accuracy of each class in percent, mean over seeds, at ${state.selection}`));
      const table = html("table", {}, caption, html("thead", {}, head), html("tbody", {}, ...rows));
      this.details.querySelector(".scroll").replaceChildren(table);
    }
  }
  const charts = [...document.querySelectorAll("figure.chart")].map((figure) => new Chart(figure));

  // ---- Events
  for (const radio of radios) {
    radio.addEventListener("change", () => {
      state.selection = radio.value;
      writeHash();
      apply();
    });
  }
  for (const table of boards.values()) {
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) onSort(table, button);
    });
  }
  document.addEventListener("click", (event) => {
    const drawer = document.getElementById(event.target.closest("a[href^='#row-']")?.hash.slice(1) ?? "");
    if (!drawer) return;
    event.preventDefault(); // the hash keeps the state of the page
    drawer.open = true;
    drawer.scrollIntoView({ block: "start" });
    drawer.querySelector("summary").focus({ preventScroll: true });
  });
  window.addEventListener("hashchange", () => readHash() && apply());
  document.querySelector("form.controls").addEventListener("submit", (event) => event.preventDefault());
  readHash();
  apply();
})();
