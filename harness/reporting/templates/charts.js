// Charts, drawn as SVG from the data beside them.
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
const charts = new Map([...document.querySelectorAll("figure.chart")].map((figure) => [figure.dataset.section, new Chart(figure)]));

