// Two rows of one table side by side; at first its cross-entropy and its best method.
class Comparison {
  constructor(form) {
    this.first = form.elements.namedItem("first");
    this.second = form.elements.namedItem("second");
    for (const field of [this.first, this.second]) {
      field.addEventListener("change", () => {
        state.compare = [state.board, this.first.value, this.second.value];
        this.show();
        writeHash();
      });
    }
  }

  show() {
    const [section, ...chosen] = state.compare ?? [];
    if (section && charts.has(section)) state.board = switcher.value = section;
    const rows = charts.get(state.board)?.data.series ?? [];
    if (rows.length < 2) return this.target().replaceChildren(html("p", {}, "This data set has no two rows with a result."));
    const best = rows.find(({ head }) => head) ?? rows[0]; // rows stand by rank
    const base = rows.find(({ head, method }) => head && method === "ce" && best.method !== "ce") ?? rows.find((one) => one !== best);
    const known = chosen.every((key) => rows.some((one) => one.key === key));
    [this.first, this.second].forEach((field, at) => {
      field.replaceChildren(...rows.map((one) => html("option", { value: one.key }, one.name)));
      field.value = state.compare && known ? chosen[at] : [base, best][at].key;
    });
    return this.draw();
  }

  target() {
    return document.querySelector(".comparison");
  }

  draw() {
    const { data } = charts.get(state.board);
    const [a, b] = [this.first, this.second].map((field) => data.series.find((one) => one.key === field.value));
    const rows = [a, b];
    const rule = ruleOf(state.board);
    const pictures = picturesOf(data, rows, rule).slice(0, 3);
    const differences = a.values[rule] && b.values[rule]
      ? a.values[rule].map((value, at) => (value === null || b.values[rule][at] === null ? null : b.values[rule][at] - value)) : null;
    if (differences) {
      const series = [{ name: `${b.name} minus ${a.name}`, index: 5, ...perClass(differences) }];
      pictures.splice(1, 0, picture({ title: "Difference, second minus first (points)", xTitle: classTitle(data), series, ticks: classTicks(data), dots: series[0].x.length <= 20 }));
    }
    this.target().replaceChildren(this.scores(a, b, rule), this.test(data, a, b), legend(rows), html("div", { class: "grid-of-pictures" }, ...pictures));
  }

  scores(a, b, rule) {
    const titles = { all: "All", many: "Many", medium: "Medium", few: "Few", macro_f1: "Macro-F1", ece: "ECE" };
    const text = (score) => (score ? `${score[0]}${score[1] && ` ± ${score[1]}`}` : "-");
    const signed = (value) => (Number(value) === 0 ? value.replace("-", "") : value.startsWith("-") ? `\u2212${value.slice(1)}` : `+${value}`);
    const exact = ({ means, scores }, key, at) => means[rule][at] ?? Number(scores[rule][key][0]);
    const digits = (value) => value.toFixed(Math.max(1, (String(value).split(".")[1] ?? "").length));
    const lines = Object.entries(titles).map(([key, title], at) => {
      const found = this.difference(a, b, key);
      const [one, other] = [a, b].map((row) => row.scores[rule][key]);
      const mean = found?.[0] ?? (one && other ? Number((exact(b, key, at) - exact(a, key, at)).toFixed(1)) : null);
      const bounds = found?.length === 1 ? [", one seed"] : found ? [" ", html("span", { class: "interval" }, `(${found.slice(1).map((bound) => signed(digits(bound))).join(" to ")})`)] : [];
      const sure = found && (found[1] > 0 || found[2] < 0);
      const difference = mean === null ? ["-"] : [signed(mean.toFixed(1)), ...bounds];
      return html("tr", {}, html("th", { scope: "row" }, title), ...[text(one), text(other)].map((cell) => html("td", { class: "number" }, cell)),
        html("td", { class: "number" }, ...(sure ? [html("strong", {}, ...difference)] : difference)));
    });
    const head = html("tr", {}, html("th", { scope: "col" }, `${titleOf(rule)}, percent`), ...[a, b].map(({ name, code }) => html("th", { scope: "col", class: "number", title: code }, name)), html("th", { scope: "col", class: "number" }, "Second minus first (95 % interval)"));
    return html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores of both" },
      html("table", {}, html("thead", {}, head), html("tbody", {}, ...lines)));
  }

  // The second minus the first with its interval, where there is one: of accuracies after the last epoch, rounded by the report.
  difference(a, b, score) {
    const [early, late] = [a.row, b.row].sort((one, other) => one - other);
    const found = ruleOf(state.board) === "last" ? charts.get(state.board).data.differences[score]?.[late]?.[early] : null;
    if (!found || b.row === late) return found ?? null;
    const [mean, low, high] = found;
    return found.length === 1 ? [-mean] : [-mean, -high, -low];
  }

  test(data, a, b) {
    const p = data.pairs?.[a.row]?.[b.row];
    if (a === b) return html("p", {}, "The two are the same row.");
    if (!data.pairs) return html("p", {}, "This table has too many rows for a test of every pair; its ranks are tested.");
    if (p === null || p === undefined) return html("p", {}, "No paired test: they have no seed with stored predictions in common.");
    const verdict = p < 0.05 ? "these runs differ" : "these runs cannot be told apart";
    const last = ruleOf(state.board) === "last" ? "Bold: the interval, over seeds and test images, leaves out zero." : "Intervals and the test are of the last epoch only.";
    return html("p", {}, `${last} Over all images: p = ${p.toPrecision(2)} (exact test, last epoch); at 5 % ${verdict}. Ranks compare each row with the best of its group, so two rows that cannot be told apart may have different ranks. The test asks whether these runs differ, an interval whether further seeds would, so the two need not agree. Nothing here is corrected for looking at many pairs.`);
  }
}
const compareForm = document.querySelector("form.compare");
const comparison = compareForm && new Comparison(compareForm);
