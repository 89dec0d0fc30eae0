// Two rows of one table side by side.
class Comparison {
  constructor(form) {
    this.form = form;
    this.table = form.elements.namedItem("table");
    this.first = form.elements.namedItem("first");
    this.second = form.elements.namedItem("second");
    for (const [section, { data }] of charts) {
      if (data.series.length > 1) this.table.append(html("option", { value: section }, data.title));
    }
    this.table.addEventListener("change", () => this.pick(this.table.value, "", ""));
    for (const field of [this.first, this.second]) {
      field.addEventListener("change", () => this.pick(this.table.value, this.first.value, this.second.value));
    }
  }

  pick(...chosen) {
    state.compare = chosen[1] ? chosen : null;
    if (!state.compare) this.fill(chosen[0]);
    this.show();
    writeHash();
  }

  fill(section) {
    this.table.value = section;
    const rows = charts.get(section)?.data.series ?? [];
    for (const [field, at] of [[this.first, 0], [this.second, 1]]) {
      field.replaceChildren(...rows.map((one) => html("option", { value: one.key }, one.name)));
      field.selectedIndex = at;
    }
  }

  show() {
    const [section, first, second] = state.compare ?? [];
    const known = charts.get(section)?.data.series.map((one) => one.key) ?? [];
    if (state.compare && known.includes(first) && known.includes(second)) {
      this.fill(section);
      this.first.value = first;
      this.second.value = second;
    } else if (!this.table.value || !this.first.options.length) {
      if (!this.table.options.length) return this.target().replaceChildren(html("p", {}, "No table has two rows with a result."));
      this.fill(this.table.options[0].value);
    }
    return this.draw();
  }

  target() {
    return document.querySelector(".comparison");
  }

  draw() {
    const { data } = charts.get(this.table.value);
    const [a, b] = [this.first, this.second].map((field) => data.series.find((one) => one.key === field.value));
    const rows = [a, b];
    const pictures = picturesOf(data, rows).slice(0, 3);
    const differences = a.values[state.selection] && b.values[state.selection]
      ? a.values[state.selection].map((value, at) => (value === null || b.values[state.selection][at] === null ? null : b.values[state.selection][at] - value)) : null;
    if (differences) {
      const series = [{ name: `${b.name} minus ${a.name}`, index: 5, x: data.counts.map((_, at) => at), y: differences }];
      pictures.splice(1, 0, picture({ title: "Difference, second minus first (points)", xTitle: "training images of the class", series, ticks: classTicks(data), dots: data.counts.length <= 20 }));
    }
    this.target().replaceChildren(this.scores(a, b), this.test(data, a, b), legend(rows), html("div", { class: "grid-of-pictures" }, ...pictures));
  }

  scores(a, b) {
    const titles = { all: "All", many: "Many", medium: "Medium", few: "Few", macro_f1: "Macro-F1", ece: "ECE" };
    const text = (score) => (score ? `${score[0]}${score[1] && ` ± ${score[1]}`}` : "-");
    const signed = (value) => (Number(value) === 0 ? value.replace("-", "") : value.startsWith("-") ? `\u2212${value.slice(1)}` : `+${value}`);
    const lines = Object.entries(titles).map(([key, title]) => {
      const [one, other] = [a, b].map((row) => row.scores[state.selection][key]);
      const difference = one && other ? signed((other[0] - one[0]).toFixed(1)) : "-"; // of the numbers as they are printed
      return html("tr", {}, html("th", { scope: "row" }, title), ...[text(one), text(other), difference].map((cell) => html("td", { class: "number" }, cell)));
    });
    const head = html("tr", {}, html("th", { scope: "col" }, `At ${state.selection}, percent`), ...[a.name, b.name, "Second minus first"].map((name) => html("th", { scope: "col", class: "number" }, name)));
    return html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores of both" },
      html("table", {}, html("thead", {}, head), html("tbody", {}, ...lines)));
  }

  test(data, a, b) {
    const p = data.pairs?.[a.row]?.[b.row];
    if (a === b) return html("p", {}, "The two are the same row.");
    if (!data.pairs) return html("p", {}, "This table has too many rows for a test of every pair; its ranks are tested.");
    if (p === null || p === undefined) return html("p", {}, "No paired test: they have no seed with stored predictions in common.");
    const verdict = p < 0.05 ? "the two differ" : "the two cannot be told apart";
    return html("p", {}, `Paired test over all images at last: p = ${p.toPrecision(2)}; at 5 % ${verdict}. Not corrected for looking at many pairs.`);
  }
}
const compareForm = document.querySelector("form.compare");
const comparison = compareForm && new Comparison(compareForm);
