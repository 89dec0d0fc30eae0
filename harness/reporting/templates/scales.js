// Scales, axes and names of the pictures. These files have a scope of their own: the page sees nothing of it.
const short = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });

const pen = document.createElement("canvas").getContext("2d");
const FONT = getComputedStyle(document.body).fontFamily;
function widthOf(text, size = 12) {
  pen.font = `${size}px ${FONT}`;
  return pen.measureText(text).width;
}

// Values to pixels; `round` values for an axis lie between the two ends.
function linear([low, high], [from, to]) {
  const scale = (value) => round(from + ((to - from) * (value - low)) / (high - low || 1));
  scale.ticks = (most) => {
    const unit = 10 ** Math.floor(Math.log10((high - low || 1) / most));
    const step = [1, 2, 5, 10].map((times) => times * unit).find((size) => (high - low) / size <= most);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, at) => Number(((first + at) * step).toPrecision(12)));
  };
  return scale;
}

function logarithmic([low, high], [from, to]) {
  const scale = linear([Math.log(low), Math.log(high)], [from, to]);
  const here = (value) => scale(Math.log(value));
  here.ticks = (most) => [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]].map((steps) => {
    const powers = Array.from({ length: 14 }, (_, at) => 10 ** (at - 4));
    return powers.flatMap((power) => steps.map((step) => Number((power * step).toPrecision(3)))).filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  }).find((ticks) => ticks.length <= most) ?? [low, high];
  return here;
}

// The two ends of values, with some room on both sides.
function around(values, room, floor = -Infinity, ceiling = Infinity) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const wide = Math.max(high - low, 1) * room;
  return [Math.max(floor, low - wide), Math.min(ceiling, high + wide)];
}

// Grid, ticks and titles. ticks: [pixel, text]; box: the drawing's width and height, and its margins.
function axes(box, { x, y, xTitle, yTitle }) {
  const [right, foot] = [box.width - box.right, box.height - box.bottom];
  return [
    ...y.flatMap(([at, text]) => [
      svg("line", { class: "pic-grid", x1: box.left, x2: right, y1: at, y2: at }),
      svg("text", { class: "pic-tick", x: box.left - 7, y: at + 4, "text-anchor": "end" }, text),
    ]),
    ...x.flatMap(([at, text]) => [
      svg("line", { class: "pic-axis", x1: at, x2: at, y1: foot, y2: foot + 4 }),
      svg("text", { class: "pic-tick", x: at, y: foot + 17, "text-anchor": "middle" }, text),
    ]),
    svg("line", { class: "pic-axis", x1: box.left, x2: right, y1: foot, y2: foot }),
    svg("text", { class: "pic-title", x: (box.left + right) / 2, y: box.height - 5, "text-anchor": "middle" }, xTitle),
    svg("text", { class: "pic-title", x: 2, y: box.top - 10 - (box.over ?? 0) }, yTitle),
  ];
}

// A line's key above a drawing: [{name, index}] in as many lines as they need. Its height comes first.
function keys(lines, { left, width, top = 14 }) {
  let [x, y] = [left, top];
  const parts = lines.map(({ name, index }) => {
    const wide = 44 + widthOf(name);
    if (x > left && x + wide > width) [x, y] = [left, y + 19];
    const { colour, dash, marker } = styleOf(index);
    const part = svg("g", { class: colour },
      svg("path", { d: `M${x} ${y}h28`, class: `pic-line ${dash}` }),
      svg("path", { d: marker, class: "pic-mark", transform: `translate(${x + 14} ${y})` }),
      svg("text", { class: "pic-label", x: x + 34, y: y + 4 }, name));
    x += wide + 10;
    return part;
  });
  return [lines.length ? y + 10 : 0, parts];
}

// A place beside its point for each name, clear of points and of the names before it, and of `edges` if there is one that is.
// A name of rank 2 that finds none is left out; one of a lower rank may stand further away, at the end of a line.
function placed(names, points, box, edges = []) {
  const taken = points.map(({ x, y }) => [x - 5, y - 5, x + 5, y + 5]);
  const hits = (boxes, [a, b, c, d]) => boxes.some(([e, f, g, h]) => a < g && c > e && b < h && d > f);
  return names.flatMap(({ x, y, text, rank }) => {
    const wide = widthOf(text);
    const tries = (rank < 2 ? [8, 12, 20, 30, 45, 65, 90] : [8]).flatMap((far) => [[far, 4], [-far - wide, 4], [-wide / 2, -far - 1], [-wide / 2, far + 9], [8 - wide, -far - 1], [-8, -far - 1], [far, -far], [far, far + 7], [-far - wide, -far], [-far - wide, far + 7]].map((by) => [...by, far]));
    const spots = tries.map(([dx, dy, far]) => ({ dx, dy, far, spot: [x + dx - 1, y + dy - 10, x + dx + wide + 1, y + dy + 3] }));
    const free = spots.filter(({ spot }) => spot[0] >= box.left && spot[2] <= box.width - 2 && spot[1] >= box.top && spot[3] <= box.height - box.bottom && !hits(taken, spot));
    const found = free.find(({ spot, far }) => far < 30 && !hits(edges, spot)) ?? free[0];
    if (!found) return [];
    const { dx, dy, far, spot } = found;
    taken.push([spot[0] - 3, spot[1], spot[2] + 3, spot[3]]);
    const name = svg("text", { class: "pic-label pic-halo", x: round(x + dx), y: round(y + dy) }, text);
    if (far < 20) return [name];
    const end = [Math.max(spot[0], Math.min(x, spot[2])), Math.max(spot[1], Math.min(y, spot[3]))].map(round);
    return [svg("path", { class: "pic-leader", d: `M${x} ${y}L${end}` }), name];
  });
}
