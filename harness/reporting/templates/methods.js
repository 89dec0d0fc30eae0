// The pictures of a method, drawn when its view is opened: one set for each table in which it has a row.
const PICTURE = { width: 380, height: 210, left: 46, right: 10, top: 14, bottom: 34 };

function nice(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const unit = 10 ** Math.floor(Math.log10(span / 3));
  const step = [1, 2, 5, 10].map((times) => times * unit).find((size) => span / size <= 4);
  const ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) ticks.push(Number(at.toPrecision(12)));
  return ticks;
}

// series: [{name, index, x, y, spread}] ; index chooses colour, dash and marker.
function picture({ title, xTitle, series, ticks, low, high, dots }) {
  const box = PICTURE;
  const all = series.flatMap(({ y, spread }) => y.flatMap((v, i) => (v === null ? [] : [v - (spread?.[i] ?? 0), v + (spread?.[i] ?? 0)])));
  const bottom = low ?? Math.min(...all);
  const top = Math.max(high ?? Math.max(...all), bottom + 1e-9);
  const xs = series.flatMap(({ x }) => x);
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const px = (value) => round(box.left + ((box.width - box.left - box.right) * (value - first)) / (last - first || 1));
  const py = (value) => round(box.top + (box.height - box.top - box.bottom) * (1 - (value - bottom) / (top - bottom)));
  const parts = nice(bottom, top).flatMap((value) => [
    svg("line", { class: "grid", x1: box.left, x2: box.width - box.right, y1: py(value), y2: py(value) }),
    svg("text", { x: box.left - 6, y: py(value) + 4, "text-anchor": "end" }, value.toLocaleString("en", { maximumSignificantDigits: 4 })),
  ]);
  for (const [value, text] of ticks) parts.push(svg("text", { x: px(value), y: box.height - box.bottom + 16, "text-anchor": "middle" }, text));
  parts.push(svg("text", { x: (box.left + box.width - box.right) / 2, y: box.height - 3, "text-anchor": "middle" }, xTitle));
  for (const { name, index, x, y, spread } of series) {
    const { colour, dash, marker } = styleOf(index);
    const group = svg("g", { class: colour }, svg("title", {}, name));
    if (spread?.some((width) => width > 0)) {
      const up = x.map((at, i) => `${px(at)} ${py(y[i] + spread[i])}`);
      const down = x.map((at, i) => `${px(at)} ${py(y[i] - spread[i])}`).reverse();
      group.append(svg("path", { d: `M${[...up, ...down].join("L")}Z`, class: "band" }));
    }
    let pen = "M";
    let path = "";
    x.forEach((at, i) => {
      if (y[i] === null) { pen = "M"; return; }
      path += `${pen}${px(at)} ${py(y[i])}`;
      pen = "L";
      if (dots) group.append(svg("path", { d: marker, class: "marker", transform: `translate(${px(at)} ${py(y[i])}) scale(.7)` }));
    });
    group.append(svg("path", { d: path || "M0 0", class: `line ${dash}` }));
    parts.push(group);
  }
  const names = series.map(({ name }) => name).join(", ");
  const drawing = svg("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "img", "aria-label": `${title}: ${names}` }, ...parts);
  return html("figure", { class: "picture" }, html("figcaption", {}, title), drawing);
}

const epochTicks = (series) => {
  const xs = series.flatMap(({ x }) => x);
  return nice(Math.min(...xs), Math.max(...xs)).map((value) => [value, String(value)]);
};

function classTicks(data) {
  const every = Math.max(1, Math.ceil(data.counts.length / 8));
  return data.counts.map((count, at) => [at, String(count)]).filter(([at]) => at % every === 0);
}

const classTitle = (data) => (data.counts.length > 40 ? "training images of the class; means of groups" : "training images of the class");

function picturesOf(data, rows, rule) {
  const byClass = (title, values, limits = {}) => {
    const series = rows.map((one, index) => ({ name: one.name, index, values: values(one) })).filter((one) => one.values)
      .map((one) => ({ ...one, ...perClass(one.values) }));
    return series.length ? [picture({ title, xTitle: classTitle(data), series, ticks: classTicks(data), dots: series[0].x.length <= 20, ...limits })] : [];
  };
  const byEpoch = (title, name) => {
    const series = rows.flatMap((one, index) => stagesOf(one, name).filter(({ x }) => x.length > 1).map((part, at) => ({ name: at ? `${one.name}, stage 2` : one.name, index, ...part })));
    return series.length ? [picture({ title, xTitle: "epoch, both stages", series, ticks: epochTicks(series) })] : [];
  };
  const quantities = [...new Set(rows.flatMap((one) => Object.keys(one.quantities)))];
  return [
    ...byClass(`Accuracy of each class (%), ${titleOf(rule).toLowerCase()}`, (one) => one.values[rule], { low: 0, high: 100 }),
    ...byEpoch("Test accuracy (%), mean and deviation over seeds", "test"),
    ...byEpoch("Training loss", "loss"),
    ...quantities.flatMap((name) => byClass(`${name[0].toUpperCase()}${name.slice(1)} of each class`, (one) => one.quantities[name])),
  ];
}

function confusionTable(data, one) {
  const place = new Map(data.classes.map((name, at) => [name, at]));
  const rows = one.confusions.map(([name, taken]) => html("tr", {},
    html("th", { scope: "row" }, data.names[place.get(name)]), html("td", { class: "number" }, String(data.counts[place.get(name)])),
    html("td", {}, taken.map(([as, share]) => `${as === name ? "itself" : data.names[place.get(as)]} ${(100 * share).toFixed(1)} %`).join(", "))));
  const head = html("tr", {}, ...["Rare class", "Training images", "Its test images are taken for"].map((text) => html("th", { scope: "col" }, text)));
  return html("details", { class: "confusion" }, html("summary", {}, `Confusions of the tail, ${one.name}`),
    html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows)));
}

function legend(rows) {
  return html("ul", { class: "legend" }, ...rows.map((one, index) => {
    const { colour, dash, marker } = styleOf(index);
    return html("li", {}, html("span", { class: "key" }, svg("svg", { viewBox: "-16 -8 32 16", class: colour, "aria-hidden": "true" },
      svg("path", { d: "M-15 0H15", class: `line ${dash}` }), svg("path", { d: marker, class: "marker" })), one.name));
  }));
}

function fillMethod(view) {
  const parts = [];
  for (const [board, { data }] of charts) {
    const rows = data.series.filter((one) => one.method === view.dataset.method);
    if (!rows.length) continue;
    const rule = ruleOf(board);
    const instead = rule === state.selection ? [] : [html("p", { class: "muted" }, lackOf(board, state.selection))];
    parts.push(html("h3", {}, data.board), ...instead, legend(rows), html("div", { class: "grid-of-pictures" }, ...picturesOf(data, rows, rule)),
      ...rows.filter((one) => one.confusions.length).map((one) => confusionTable(data, one)));
  }
  view.querySelector(".pictures").replaceChildren(...parts);
}

const methodViews = [...document.querySelectorAll("details.method")];
for (const view of methodViews) view.addEventListener("toggle", () => view.open && fillMethod(view));
