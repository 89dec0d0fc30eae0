// Two numbers of each method against each other, and the methods that no other beats on both (their front).
class Scatter extends Picture {
  compose(data, rule) {
    const axis = this.axesOf(data, rule);
    const variants = gallery.variants.checked;
    const all = gallery.rows.map((one) => ({ one, x: axis.x.of(one), y: axis.y.of(one) })).filter(({ x, y }) => x !== null && y !== null);
    const points = variants ? all : onePerMethod(all);
    if (!points.length) return { empty: axis.missing };
    const better = (a, b) => Math.sign(a - b) * axis.x.better;
    for (const point of points) point.front = !points.some((other) => beats(other, point, better));
    const front = points.filter((point) => point.front).sort((a, b) => a.x - b.x || a.y - b.y);
    const lines = points.map(({ one, x, y, front: on }) => [one.name, ...axis.x.cells(one, x), ...axis.y.cells(one, y), on ? "yes" : ""]);
    const left = all.length - points.length;
    const hidden = left ? ` ${left} ${left === 1 ? "variant is" : "variants are"} not shown.` : "";
    const reading = `${front.length} of ${points.length} ${variants ? "row" : "method"}${points.length === 1 ? "" : "s"} ${front.length === 1 ? "is" : "are"} on the front: no other is better on both. ${axis.order}: ${front.map((point) => `${point.one.name} (${axis.x.text(point.x)}, ${axis.y.text(point.y)})`).join(", ")}.${hidden}${axis.note ?? ""}`;
    return { ...this.drawn(axis, points, front), reading, lines, head: ["Method", ...axis.x.heads, ...axis.y.heads, "On the front"] };
  }

  drawn(axis, points, front) {
    const [tall, legend] = this.legend(this.box());
    const box = this.box({ top: tall + 34 });
    const [right, foot] = [box.width - box.right, box.height - box.bottom];
    const x = axis.x.scale(points.map((point) => point.x), [box.left + 6, right - 6]);
    const y = linear(around(points.map((point) => point.y), 0.08, 0, 100), [foot - 4, box.top + 4]);
    const few = box.width < 500;
    const ticks = { x: x.ticks(few ? 5 : 9).map((at) => [x(at), axis.x.tick(at)]), y: y.ticks(7).map((at) => [y(at), String(at)]) };
    const parts = axes(box, { ...ticks, xTitle: axis.x.title(few), yTitle: axis.y.title });
    const steps = front.map((point, at) => {
      const [px, py] = [x(point.x), y(point.y)];
      if (!at) return `M${px} ${py}`;
      return axis.x.better > 0 ? `V${py}H${px}` : `H${px}V${py}`; // a step holds what can be had at least
    });
    parts.push(svg("path", { class: "pic-front", d: steps.join("") || "M0 0" }));
    const edges = front.slice(1).flatMap((point, at) => {
      const [ax, ay, bx, by] = [x(front[at].x), y(front[at].y), x(point.x), y(point.y)];
      const [cx, cy] = axis.x.better > 0 ? [ax, by] : [bx, ay]; // the step's corner
      return [[ax, ay, cx, cy], [cx, cy, bx, by]].map(([left, top, right, bottom]) => [Math.min(left, right), Math.min(top, bottom), Math.max(left, right), Math.max(top, bottom)]);
    });
    const marks = points.map((point) => ({ x: x(point.x), y: y(point.y), key: point.one.key, text: `${point.one.name}: ${axis.x.told(point.one, point.x)}, ${axis.y.told(point.one, point.y)}${point.front ? "; on the front" : ""}` }));
    const chosen = (point) => gallery.lines.includes(point.one);
    const named = points.map((point, at) => ({ ...marks[at], text: point.one.name, rank: chosen(point) ? 0 : point.front ? 1 : 2 }));
    named.sort((a, b) => a.rank - b.rank);
    parts.push(...placed(named, marks, box, edges), ...points.map((point, at) => this.point(point, marks[at])), ...legend);
    return { parts, marks, height: box.height };
  }

  point({ one, front }, { x, y }) {
    const line = gallery.lines.indexOf(one);
    if (line < 0) return svg("circle", { cx: x, cy: y, r: 4, class: front ? "pic-dot" : "pic-ring" });
    const { colour, marker } = styleOf(line);
    return svg("g", { class: colour }, svg("path", { class: "pic-mark", transform: `translate(${x} ${y}) scale(1.35)`, d: marker }));
  }

  // What the marks mean, in as many lines as that needs. Its height comes first.
  legend(box) {
    const entries = [
      [svg("circle", { r: 4, cx: 6, class: "pic-dot" }), "on the front"], [svg("circle", { r: 4, cx: 6, class: "pic-ring" }), "behind it"],
      [svg("g", { class: "s0" }, svg("path", { class: "pic-mark", d: MARKERS[0], transform: "translate(6 0) scale(1.35)" })), "coloured: rows drawn as lines below"],
    ];
    let [right, down] = [box.left, 12];
    const parts = entries.map(([mark, text]) => {
      const wide = 30 + widthOf(text);
      if (right + wide > box.width && right > box.left) [right, down] = [box.left, down + 18];
      const part = svg("g", { transform: `translate(${right} ${down})` }, mark, svg("text", { class: "pic-label", x: 16, y: 4 }, text));
      right += wide;
      return part;
    });
    return [down - 2, parts];
  }
}

// A method's point is that of the row that stands for it; where that has no value, its best variant's. Rows come best first.
function onePerMethod(points) {
  const found = new Map();
  for (const point of points) {
    const { method, head } = point.one;
    if (!found.has(method) || (head && !found.get(method).one.head)) found.set(method, point);
  }
  return [...found.values()];
}

const beats = (a, b, better) => better(a.x, b.x) >= 0 && a.y >= b.y && (better(a.x, b.x) > 0 || a.y > b.y);

const scoreOf = (one, rule, key) => (one.scores[rule][key] ? Number(one.scores[rule][key][0]) : null);
const spreadOf = (one, rule, key) => one.scores[rule][key]?.[1] ?? "";
const withSpread = (one, rule, key) => `${one.scores[rule][key][0]}${spreadOf(one, rule, key) && ` ± ${spreadOf(one, rule, key)}`} %`;

function accuracyAxis(rule, key, title, narrow) {
  return {
    better: 1,
    of: (one) => scoreOf(one, rule, key),
    heads: [`${title} (%)`, "±"],
    cells: (one) => [one.scores[rule][key][0], spreadOf(one, rule, key)],
    text: (value) => round(value).toFixed(1),
    tick: String,
    told: (one) => `${title.toLowerCase()} ${withSpread(one, rule, key)}`,
    title: `${narrow ?? title} (%)`,
    scale: (values, range) => linear(around(values, 0.06, 0, 100), range),
  };
}

class ManyFew extends Scatter {
  axesOf(data, rule) {
    const groups = ["many", "medium", "few"].filter((_, at) => data.sizes[at]);
    const [first, last] = [groups[0], groups.at(-1)];
    const named = (group) => `the ${data.sizes[["many", "medium", "few"].indexOf(group)]} ${group}-shot classes`;
    const [x, y] = [first, last].map((group) => accuracyAxis(rule, group, `${group[0].toUpperCase()}${group.slice(1)}`));
    this.retitle(groups);
    return {
      x: { ...x, title: () => `accuracy on ${named(first)} (%)` },
      y: { ...y, title: `accuracy on ${named(last)} (%)` },
      order: `From the best of the ${last} to the best of the ${first} group, as (${first}, ${last})`,
      note: last === "few" ? "" : " No class of this board is few-shot, so its rarest group stands in.",
      missing: groups.length < 2 ? "All classes of this board are of one group, so there is nothing to trade." : "No row that is shown has both numbers at this selection rule.",
    };
  }

  retitle(groups) {
    const [first, last] = [groups[0], groups.at(-1)];
    if (groups.length < 2) return;
    this.find("figcaption").textContent = this.title = `Accuracy on ${first} against ${last}`;
    this.plot.setAttribute("aria-label", `${this.title}: the arrow keys go from point to point`);
  }
}

class CostAccuracy extends Scatter {
  constructor() {
    super("cost");
    this.measure = this.find("[name=measure]");
  }

  axesOf(data, rule) {
    const reference = data.series.find((one) => one.key === data.reference);
    const measure = this.measure.value;
    const told = "training time";
    const timed = gallery.rows.filter(({ cost }) => cost[measure] !== null).map((one) => ({ one }));
    const left = gallery.rows.length - timed.length;
    const rows = left === 1 ? "row was" : "rows were";
    const shown = gallery.variants.checked ? timed : onePerMethod(timed);
    const loose = shown.filter(({ one }) => measure === "times" || one.cost.steps === null).length;
    const load = "the seconds of runs, machine load included";
    const source = loose < shown.length ? `timed steps, as if each ran alone${loose ? `; ${loose} of ${shown.length} from ${load}` : ""}` : load;
    const from = ({ cost }) => (measure === "time" && cost.steps !== null ? "timed steps" : "the seconds of its runs, machine load included");
    const seconds = ({ cost }) => (cost.seconds ? [String(cost.seconds[0]), `${cost.seconds[1]} to ${cost.seconds[2]}`] : ["-", "-"]);
    return {
      x: {
        better: -1,
        of: (one) => one.cost[measure],
        heads: [`Times the ${told} of ${REFERENCE}`, "From", "Training (s), median", "over seeds"],
        cells: (one, x) => [String(x), from(one), ...seconds(one)],
        text: (value) => `\u00d7${short(value)}`,
        tick: (value) => `\u00d7${short(value)}`,
        told: (one, x) => `${short(x)} times the ${told} of ${REFERENCE}, from ${from(one)}${one.cost.seconds ? ` (${seconds(one)[0]} s)` : ""}`,
        title: (narrow) => `${told}${narrow ? "" : ", all stages,"} relative to ${REFERENCE}`,
        scale: (values, range) => logarithmic([Math.min(...values, 1) / 1.15, Math.max(...values, 1) * 1.15], range),
      },
      y: { ...accuracyAxis(rule, "all", "All"), title: "accuracy over all images (%)" },
      order: "From the cheapest up, as (cost, accuracy)",
      note: ` Cost from ${source}.${left ? ` ${left} ${rows} timed under another load than ${REFERENCE}, or not at all, and left out.` : ""}`,
      missing: reference ? `No row that is shown has a cost to hold against that of ${REFERENCE}.` : `This board has no row of ${REFERENCE} that costs could be relative to.`,
    };
  }
}
const REFERENCE = "cross-entropy";
