// What the test images of each class are taken for: a heat map with its numbers, and the classes confused most often.
class ConfusionMap extends Picture {
  constructor() {
    super("confusion");
    this.select = this.find("[name=row]");
  }

  compose(data) {
    const rows = gallery.rows.filter((one) => one.heat);
    const now = this.select.value;
    this.select.replaceChildren(...rows.map((one) => html("option", { value: one.key }, one.name)));
    const one = rows.find((row) => row.key === now) ?? rows.find((row) => row.head) ?? rows[0];
    const list = this.find(".pic-list");
    list.replaceChildren();
    if (!one) return { empty: "No row that is shown has stored predictions." };
    this.select.value = one.key;
    list.append(html("p", { class: "pic-listed" }, `Most often confused, ${one.name}`), html("ol", {}, ...one.confused.map(([from, to, share]) => html("li", {}, `${data.confused[from]} taken for ${data.confused[to]}: ${share} %`))));
    const right = meanOf(one.heat.map((line, at) => line[at]));
    const [own, ...others] = [...one.heat.at(-1)].reverse();
    const other = others.length - 1 - others.indexOf(Math.max(...others));
    const grouped = data.heat.length < data.counts.length;
    const [what, itself] = grouped ? ["a group of classes", "one of the group"] : ["a class", "it"];
    this.find(".pic-framed").textContent = grouped ? "taken for a class of the same group" : "right";
    const reading = `${one.name}: on average ${right.toFixed(0)} % of the test images of ${what} are taken for ${itself}. Of ${data.heat.at(-1)[1]} it is ${own.toFixed(0)} %, and ${Math.max(...others).toFixed(0)} % are taken for ${data.heat[other][1]}.`;
    const head = ["True class", ...data.heat.map(([name]) => `as ${name} (%)`)];
    return { ...this.drawn(data, one), reading, head, lines: one.heat.map((line, at) => [data.heat[at][0], ...line.map(String)]) };
  }

  drawn(data, one) {
    const names = data.heat.map(([name]) => (name.length > 15 ? `${name.slice(0, 14)}\u2026` : name));
    const margin = Math.max(...names.map((name) => widthOf(name))) + 12;
    const box = this.box({ left: margin + 14, top: 22 });
    const size = Math.min(48, (box.width - box.left - 4) / names.length);
    const slanted = Math.max(...names.map((name) => widthOf(name))) > size - 4;
    const foot = box.top + size * names.length;
    const height = foot + (slanted ? margin * 0.75 + 34 : 44);
    const corner = (column, line) => [box.left + column * size, box.top + line * size].map(round);
    const parts = [svg("text", { class: "pic-title", x: 2, y: 12 }, "rows: true class; percent of its test images")];
    const marks = [];
    one.heat.forEach((line, at) => {
      line.forEach((share, column) => {
        const [x, y] = corner(column, at);
        const tone = Math.min(1, share / 100);
        const depth = tone >= 0.82 ? "pic-deep" : tone >= 0.6 ? "pic-mid" : "pic-pale";
        parts.push(svg("rect", { class: `pic-cell${at === column ? " pic-right" : ""}`, x, y, width: round(size - 1), height: round(size - 1), "fill-opacity": tone }));
        if (share >= 0.5 && size > 21) parts.push(svg("text", { class: depth, x: round(x + size / 2 - 0.5), y: round(y + size / 2 + 4), "text-anchor": "middle", "font-size": size > 28 ? 12 : 10.5 }, share.toFixed(0)));
        marks.push({ x: round(x + size / 2), y: round(y + size / 2), line: at, box: [x, y, round(x + size - 1), round(y + size - 1)], text: at === column ? `${data.heat[at][1]}: ${share} % ${data.heat.length < data.counts.length ? "taken for one of them" : "right"}` : `${data.heat[at][1]}: ${share} % taken for ${data.heat[column][1]}` });
      });
      const [x, y] = corner(0, at);
      parts.push(svg("text", { class: "pic-tick", x: x - 6, y: round(y + size / 2 + 4), "text-anchor": "end" }, names[at]));
      const [below] = corner(at, 0);
      parts.push(slanted
        ? svg("text", { class: "pic-tick", "text-anchor": "end", transform: `translate(${round(below + size / 2 + 4)} ${round(foot + 13)}) rotate(-42)` }, names[at])
        : svg("text", { class: "pic-tick", x: round(below + size / 2), y: round(foot + 16), "text-anchor": "middle" }, names[at]));
    });
    parts.push(svg("text", { class: "pic-title", x: round(box.left + (size * names.length) / 2), y: round(height - 6), "text-anchor": "middle" }, "taken for"));
    return { parts, marks, height: round(height) };
  }
}
