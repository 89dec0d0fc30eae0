// Accuracy of each class, by its number of training images: classes in bins where there are many, and a part of them nearer.
class Frequency extends Picture {
  constructor() {
    super("frequency");
    this.part = null;
    for (const button of this.figure.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => this.zoom(button.dataset.zoom));
    this.plot.addEventListener("pointerdown", (event) => { this.from = event.pointerType === "mouse" ? this.bin(event) : null; });
    this.plot.addEventListener("pointerup", (event) => this.drag(event));
  }

  // The classes between two places that the mouse was dragged over.
  drag(event) {
    const [from, to] = [this.from, this.bin(event)];
    this.from = null;
    if (from == null || to == null || from === to) return;
    const [first, last] = [this.bins[Math.min(from, to)], this.bins[Math.max(from, to)]];
    this.show([first[0], last[1]]);
  }

  bin(event) {
    if (!this.bins?.length) return null;
    const at = (event.clientX - this.plot.getBoundingClientRect().left - this.left) / this.step;
    return Math.max(0, Math.min(this.bins.length - 1, Math.floor(at)));
  }

  onKey(key) {
    const how = { "+": "in", "=": "in", "-": "out", 0: "all", "<": "left", ">": "right" }[key];
    if (how) this.zoom(how);
    return how ? true : super.onKey(key);
  }

  zoom(how) {
    const total = gallery.data.counts.length;
    const [from, to] = this.part ?? [0, total];
    const mark = this.marks[this.at];
    const middle = mark?.middle ?? (from + to) / 2;
    const wide = to - from;
    const sized = (size) => {
      const start = Math.round(Math.max(0, Math.min(total - size, middle - size / 2)));
      return [start, start + size];
    };
    const moved = (by) => {
      const start = Math.max(0, Math.min(total - wide, from + by));
      return [start, start + wide];
    };
    const next = { in: () => sized(Math.max(Math.min(5, total), Math.ceil(wide / 2))), out: () => sized(Math.min(total, wide * 2)), left: () => moved(-Math.ceil(wide / 2)), right: () => moved(Math.ceil(wide / 2)), all: () => null };
    this.show(next[how]());
  }

  show(part) {
    const total = gallery.data.counts.length;
    this.part = part && part[1] - part[0] < total ? part : null;
    const wasFocused = document.activeElement === this.plot;
    this.draw();
    if (wasFocused) this.goTo(0);
    announce(this.part ? `Classes ${this.classes(gallery.data, this.part)} of ${gallery.data.starts.at(-1)}` : `All ${gallery.data.starts.at(-1)} classes`);
  }

  compose(data, rule) {
    if (this.of !== data) [this.of, this.part] = [data, null];
    const rows = gallery.lines.filter((one) => one.values[rule]);
    if (!rows.length) return { empty: "No row is chosen, or none has a value at this selection rule." };
    const [from, to] = this.part ?? [0, data.counts.length];
    const most = this.width < 500 ? 10 : 20;
    const single = to - from <= 1.4 * most;
    const size = single ? to - from : most;
    this.bins = Array.from({ length: size }, (_, at) => [from + Math.floor((at * (to - from)) / size), from + Math.floor(((at + 1) * (to - from)) / size)]);
    const values = rows.map((one) => this.bins.map(([a, b]) => meanOf(one.values[rule].slice(a, b))));
    for (const button of this.figure.querySelectorAll("[data-zoom]")) button.disabled = this.part === null && ["out", "left", "right", "all"].includes(button.dataset.zoom);
    const spans = rows.map((one, at) => `${one.name} ${ends(values[at])}`).join("; ");
    const reading = `From ${data.counts[from].toLocaleString("en")} training images of a class to ${data.counts[to - 1].toLocaleString("en")}, accuracy goes: ${spans}.${single ? "" : ` ${data.starts[to] - data.starts[from]} classes in ${size} bins of about ${Math.round((data.starts[to] - data.starts[from]) / size)}; zoom in to see them ${data.starts.at(-1) > data.counts.length ? "in smaller ones" : "one by one"}.`}`;
    const lines = this.bins.map((bin, at) => [this.called(data, bin), countsOf(data, bin), data.groups[bin[0]], ...values.map((of) => (of[at] === null ? "-" : of[at].toFixed(1)))]);
    return { ...this.drawn(data, rule, rows, values, single), reading, lines, head: [single ? "Class" : "Classes", "Training images", "Group", ...rows.map((one) => `${one.name} (%)`)] };
  }

  drawn(data, rule, rows, values, single) {
    const [tall, legend] = keys(rows.map((one) => ({ name: one.name, index: gallery.lines.indexOf(one) })), { left: 2, width: this.width });
    const names = this.bins.map((bin) => this.label(data, bin));
    const box = this.box({ top: tall + 46, over: 18 });
    const longest = Math.max(...names.map((name) => widthOf(name)));
    this.step = (box.width - box.left - box.right) / this.bins.length;
    const slanted = longest > this.step - 6;
    if (slanted) {
      box.left = Math.max(box.left, widthOf(names[0]) * 0.75 - this.step / 2 + 10);
      box.bottom = 34 + longest * 0.7;
      this.step = (box.width - box.left - box.right) / this.bins.length;
    }
    this.left = box.left;
    box.height += tall + box.bottom - 30;
    const foot = box.height - box.bottom;
    const x = (at) => round(box.left + this.step * (at + 0.5));
    const top = Math.min(100, 20 * Math.ceil(Math.max(...values.flat(), 1) / 20));
    const y = linear([0, top], [foot, box.top]);
    const parts = axes(box, { x: [], y: y.ticks(6).map((at) => [y(at), String(at)]), xTitle: single ? "class (its training images)" : "training images of a class, by bins of classes", yTitle: `accuracy at ${rule} (%)` });
    names.forEach((name, at) => parts.push(slanted
      ? svg("text", { class: "pic-tick", "text-anchor": "end", transform: `translate(${x(at) + 4} ${foot + 13}) rotate(-42)` }, name)
      : svg("text", { class: "pic-tick", x: x(at), y: foot + 17, "text-anchor": "middle" }, name)));
    parts.push(...this.groups(data, box, x), ...legend);
    const marks = [];
    rows.forEach((one, line) => {
      const { colour, dash, marker } = styleOf(gallery.lines.indexOf(one));
      let open = "M";
      const path = values[line].map((value, at) => {
        if (value === null) { open = "M"; return ""; }
        const part = `${open}${x(at)} ${y(value)}`;
        open = "L";
        return part;
      }).join("");
      const group = svg("g", { class: colour }, svg("path", { class: `pic-line ${dash}`, d: path || "M0 0" }));
      values[line].forEach((value, at) => {
        if (value === null) return;
        group.append(svg("path", { class: "pic-mark", d: marker, transform: `translate(${x(at)} ${y(value)})` }));
        const bin = this.bins[at];
        const spread = one.values[rule].slice(...bin).filter((of) => of !== null);
        const range = bin[1] - bin[0] > 1 ? `, ${Math.min(...spread)} to ${Math.max(...spread)} by class` : "";
        marks.push({ x: x(at), y: y(value), line, middle: (bin[0] + bin[1]) / 2, text: `${one.name}, ${this.called(data, bin)} (${countsOf(data, bin)} training images): ${value.toFixed(1)} %${range}` });
      });
      parts.push(group);
    });
    return { parts, marks, height: box.height };
  }

  // Where many, medium and few begin.
  groups(data, box, x) {
    const parts = [];
    let from = 0;
    this.bins.forEach(([first], at) => {
      const group = data.groups[first];
      const next = this.bins[at + 1] && data.groups[this.bins[at + 1][0]];
      if (group === next) return;
      const [left, right] = [x(from) - this.step / 2, x(at) + this.step / 2];
      if (next) parts.push(svg("line", { class: "pic-divider", x1: round(right), x2: round(right), y1: box.top - 18, y2: box.height - box.bottom }));
      if (group && widthOf(group) < right - left) parts.push(svg("text", { class: "pic-tick", x: round((left + right) / 2), y: box.top - 8, "text-anchor": "middle" }, group));
      from = at + 1;
    });
    return parts;
  }

  label(data, [from, to]) {
    if (data.starts[to] - data.starts[from] > 1) return `${data.counts[from].toLocaleString("en")}\u2013${data.counts[to - 1].toLocaleString("en")}`;
    const name = data.names[from].replace(/^class /, "");
    return `${name.length > 22 ? `${name.slice(0, 21)}\u2026` : name} (${data.counts[from].toLocaleString("en")})`;
  }

  called(data, bin) {
    const [first, last] = bin.map((at) => data.starts[at]);
    return last - first > 1 ? `classes ${this.classes(data, bin)}` : data.names[bin[0]];
  }

  classes(data, [from, to]) {
    return `${data.starts[from] + 1} to ${data.starts[to]}`;
  }
}

const countsOf = (data, [from, to]) => {
  const [high, low] = [data.counts[from], data.counts[to - 1]].map((count) => count.toLocaleString("en"));
  return high === low ? high : `${high} to ${low}`;
};

function ends(values) {
  const known = values.filter((value) => value !== null);
  return `${known[0].toFixed(0)} to ${known.at(-1).toFixed(0)} %`;
}
