// The view of one model: card, curves, every threat, example images.
const dialog = document.getElementById("model");
const NORMS = { linf: "L∞", l2: "L2", l1: "L1", l0: "L0" };
const SVG = "http://www.w3.org/2000/svg";

// Elements are made node by node and text is set as text, so that no name can become markup.
function h(tag, attributes, ...children) {
  const drawn = ["svg", "path", "line", "text", "g", "circle"].includes(tag);
  const element = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}
const sideways = (label, inside) => h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, inside);
// Sentences of ours speak of images; where rows are of others, such as nodes, they speak of those.
const its = (text) => (DATA.items === "images" ? text : text.replace(/\bimage/g, DATA.items.slice(0, -1)).replace(/\bImage/g, DATA.items[0].toUpperCase() + DATA.items.slice(1, -1)).replace(/\ban (?=node)/g, "a "));
const shorten = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);
// Names of threats and settings, with places where a narrow column may break them.
const breakable = (text, length = 60) => shorten(text, length).split(/(?<=[/_-])|(?<=\.)(?=[a-z])|(?=@)/).flatMap((part) => [part, h("wbr")]);
const percent = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1));
const tenths = (value) => (value === null || value === undefined ? "–" : value.toFixed(1)); // of what is in per cent already
const number = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toLocaleString("en"));

function interval(entry, tag = "td") {
  const [value, low, high, sd] = entry ?? [null];
  if (value === null) return h(tag, { class: "n none" }, "–");
  const style = `--v:${tenths(value)};--l:${tenths(low)};--h:${tenths(high)}`;
  const spread = sd === undefined ? "" : ` sd ${tenths(sd)}`;
  return h(tag, { class: "n bar", style }, tenths(value), h("small", {}, `${tenths(low)}–${tenths(high)}${spread}`));
}

// The number of a paper is a link to it.
function linked(text) {
  for (const [how, where] of DATA.papers) {
    const found = text.match(new RegExp(how, "i"));
    if (found) return [text.slice(0, found.index), h("a", { href: where + found[1], rel: "noreferrer" }, found[0]), text.slice(found.index + found[0].length)];
  }
  return [text];
}

function fact(name, entry) {
  const [value, low, high] = entry;
  const range = value === null ? "" : h("small", {}, `${tenths(low)}–${tenths(high)}`);
  return h("div", {}, h("dt", {}, name), h("dd", {}, tenths(value), range));
}

function chart(title, lines, first = 1) {
  const known = lines.flat().filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const span = high - low || 1, longest = Math.max(...lines.map((line) => line.length));
  const x = (place) => 34 + (place * 178) / Math.max(longest - 1, 1);
  const y = (value) => 92 - (80 * (value - low)) / span;
  const paths = lines.map((line) => {
    const points = line.flatMap((value, place) => (value === null ? [] : [`${x(place).toFixed(1)} ${y(value).toFixed(1)}`]));
    return h("path", { d: "M" + points.join("L"), fill: "none", stroke: "var(--accent)", "stroke-width": "1.4", opacity: lines.length > 1 ? ".7" : "1" });
  });
  const label = (text, where) => h("text", { "font-size": "9", fill: "var(--soft)", ...where }, text);
  return h("figure", {},
    h("figcaption", {}, title),
    h("svg", { viewBox: "0 0 220 106", role: "img", "aria-label": `${title}: from ${number(low)} to ${number(high)}` },
      h("line", { x1: 34, x2: 212, y1: 92, y2: 92, stroke: "var(--rule)" }),
      h("line", { x1: 34, x2: 212, y1: 12, y2: 12, stroke: "var(--rule)" }),
      label(number(high), { x: 30, y: 15, "text-anchor": "end" }),
      label(number(low), { x: 30, y: 95, "text-anchor": "end" }),
      label(String(first), { x: 34, y: 104 }),
      label(String(first + longest - 1), { x: 212, y: 104, "text-anchor": "end" }),
      paths));
}

function charts(model) {
  const made = [];
  const names = [...new Set(model.seeds.flatMap((seed) => Object.keys(seed.curves)))].filter((name) => name !== "epoch");
  const start = model.seeds.find((seed) => seed.curves.epoch)?.curves.epoch;
  for (const name of names) {
    const lines = model.seeds.map((seed) => seed.curves[name]).filter((line) => line && line.some((value) => value !== null));
    const share = name === "validation_accuracy", shown = share ? lines.map((line) => line.map((value) => (value === null ? null : 100 * value))) : lines;
    if (lines.length) made.push(chart(shorten(name.replaceAll("_", " "), 60) + (share ? ", %" : ""), shown, 1));
  }
  if (made.length && start) made.forEach((figure) => {
    const marks = figure.querySelectorAll("text");
    marks[2].textContent = `epoch ${start[0]}`;
    marks[3].textContent = start[start.length - 1];
  });
  if (model.trace && model.trace.runs[0].length > 1) made.push(chart(`loss during ${shorten(model.trace.threat, 40)}, by step`, model.trace.runs));
  return made.length ? [h("h3", {}, "Training" + (model.seeds.length > 1 ? `, ${model.seeds.length} seeds` : "")), h("div", { class: "charts" }, made)] : [];
}

function threatTable(model) {
  const extras = [
    ["published", "published", (place, threat) => percent(model.published[threat.name])],
    ["success", "success", (place) => percent(model.success?.[place])],
    ["vote", "by vote", (place) => percent(model.vote?.[place])],
    ["distance", "distance", (place) => number(model.distance?.[place])],
    ["queries", "queries", (place) => number(model.queries?.[place])],
    ["gradients", "gradients", (place) => number(model.gradients?.[place])],
    ["zero_gradient", "zero gradients", (place) => percent(model.zero_gradient?.[place])],
    ["tie", "ties", (place) => percent(model.tie?.[place])],
    ["seconds", "seconds", (place) => number(model.seconds?.[place])],
  ].filter(([key]) => (key === "published" ? Object.keys(model.published).length : model[key]));
  const notes = {
    success: "how often the answer is the class that the attack aims at, %",
    vote: "accuracy of the majority of several draws", queries: its("forward passes per image"), gradients: its("backward passes per image"),
    zero_gradient: its("share of images whose gradient is exactly zero where the attack starts, %"), tie: its("share of images whose two largest outputs are equal, %"),
    seconds: "per cell", distance: "mean norm of the perturbation", published: "as the paper prints it, under its own protocol",
  };
  const line = (threat, place) => h("tr", {},
    h("th", { scope: "row" }, breakable(threat.name), threat.kind === "attack" ? h("small", {}, `${threat.access}, ${NORMS[threat.norm] ?? threat.norm} ≤ ${threat.radius}${threat.towards ? `, towards ${threat.towards}` : ""}${DATA.roles[threat.role] ?? ""}`) : ""),
    interval(model.threats[place]),
    extras.map(([, , value]) => h("td", { class: "n" }, value(place, threat))));
  const table = (chosen, label) => sideways(label, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "threat"), h("th", { scope: "col", class: "n" }, "accuracy"),
      extras.map(([key, title]) => h("th", { scope: "col", class: "n", title: notes[key] }, title)))),
    h("tbody", {}, chosen.map(([threat, place]) => line(threat, place)))));
  // What counts in the worst case first.
  const order = ["attack", "diagnostic", "proof", "floor", "curve", "nearest"], rank = (threat) => order.indexOf(threat.role);
  const all = DATA.threats.map((threat, place) => [threat, place]).sort(([a, i], [b, j]) => rank(a) - rank(b) || i - j);
  const corruptions = all.filter(([threat]) => threat.kind === "corruption");
  return [
    h("h3", {}, "Clean, and under every attack"),
    table(all.filter(([threat]) => threat.kind !== "corruption"), "Clean, and under every attack"),
    ...(corruptions.length ? [h("h3", {}, "Every corruption"), kindTable(model), h("details", {}, h("summary", {}, "At each severity, with cost"), table(corruptions, "Corruptions at each severity"))] : []),
  ];
}

function classTable(model) {
  if (!model.classes) return [];
  const entries = Object.entries(model.classes);
  return [h("h3", {}, "Clean, class by class"), sideways("Clean, class by class", h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "class"), entries.map(([label]) => h("th", { scope: "col", class: "n" }, shorten(label, 30))))),
    h("tbody", {}, h("tr", {}, h("th", { scope: "row" }, "accuracy"), entries.map(([, value]) => h("td", { class: "n" }, percent(value))))))) ];
}

function digests(model) {
  if (!model.cells) return [];
  return [h("details", {}, h("summary", {}, "Outcomes by digest"), sideways("Outcomes by digest", h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "threat"), model.seeds.map((seed) => h("th", { scope: "col" }, `seed ${seed.seed}`)))),
    h("tbody", {}, DATA.threats.map((threat, place) => h("tr", {}, h("th", { scope: "row" }, breakable(threat.name)),
      model.cells[place].map((digest) => h("td", {}, h("code", {}, digest ?? "–")))))))))];
}

function kindTable(model) {
  const severities = [...new Set(DATA.kinds.flatMap((kind) => kind.severities))].sort();
  const value = new Map(DATA.threats.map((threat, place) => [threat.name, model.threats[place]]));
  return sideways("Every corruption", h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "kind"), h("th", { scope: "col", class: "n" }, "mean"), severities.map((severity) => h("th", { scope: "col", class: "n" }, `severity ${severity}`)))),
    h("tbody", {}, DATA.kinds.map((kind, place) => h("tr", {}, h("th", { scope: "row" }, breakable(kind.name)), interval(model.kinds[place]),
      severities.map((severity) => h("td", { class: "n" }, tenths(value.get(`${kind.name}/${severity}`)?.[0]))))))));
}

// A card's value as its file would say it.
function toml(value) {
  if (Array.isArray(value)) return `[${value.map(toml).join(", ")}]`;
  if (value !== null && typeof value === "object") return `{ ${Object.entries(value).map(([key, item]) => `${key} = ${toml(item)}`).join(", ")} }`;
  return JSON.stringify(value);
}

function cost(model) {
  const done = model.seeds.filter((seed) => seed.seconds !== undefined);
  if (!done.length) return "";
  const mean = done.reduce((sum, seed) => sum + seed.seconds, 0) / done.length;
  const size = done[0].parameters === undefined ? "" : `${done[0].parameters.toLocaleString("en")} parameters, `;
  return h("p", { class: "note" }, `${size}trained in ${number(mean)} s${model.seeds.length > 1 ? " a seed" : ""} on ${shorten(DATA.machines[done[0].environment] ?? "?", 80)}.`);
}

function pictures(model) {
  if (model.pictures_left_out) return [h("h3", {}, "Example images"), h("p", { class: "note" }, "Left out here to keep the page small; they are in cells.parquet.")];
  if (!model.pictures?.length) return [];
  return [h("h3", {}, "Example images"),
    h("p", { class: "note" }, "The first test images under the first seed, with the label, and the prediction where its first draw is wrong; under the strongest attack, then under the hardest corruptions at their highest severity."),
    h("div", { class: "strips" }, model.pictures.map((strip) => h("figure", { class: "strip", style: `--tiles:${strip.tiles}` },
      h("figcaption", {}, shorten(strip.label, 60)),
      h("img", { src: strip.picture, alt: `${strip.tiles} test images, ${shorten(strip.label, 60)}: ${strip.captions.join(", ")}` }),
      h("div", { class: "captions", "aria-hidden": "true" }, strip.captions.map((caption) => h("span", {}, caption))))))];
}

function alarms(model) {
  const found = model.verdict;
  if (!found) return [];
  const [tone, said] = {
    believable: ["good", found.findings?.some((finding) => finding.verdict === "alarm")
      ? " Some checks suspect the gradients, but measured against proofs the attacks found what can be found."
      : " No check raised an alarm."],
    unchecked: ["open", " No check raised an alarm, but the cells that would tell are not in this report."],
  }[found.verdict] ?? ["bad", ""];
  const all = found.findings ?? [];
  return [h("h3", {}, "Is it to be believed?"),
    h("p", {}, h("span", { class: `badge ${tone}` }, found.verdict), said),
    h("ul", {}, found.alarms.map((alarm) => h("li", {}, h("strong", {}, alarm.check), ": ", alarm.text,
      alarm.next ? h("p", { class: "note" }, `Next: ${alarm.next}`) : ""))),
    all.length ? h("details", {}, h("summary", {}, `All ${all.length} checks, with their evidence`), sideways("All checks", h("table", {},
      h("thead", {}, h("tr", {}, ["check", "verdict", "what was found", "evidence"].map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, all.map((finding) => h("tr", {}, h("th", { scope: "row" }, finding.check), h("td", {}, finding.verdict), h("td", {}, finding.text),
        h("td", {}, Object.entries(finding.evidence).map(([name, value]) => h("div", {}, h("code", {}, `${name.replaceAll("_", " ")}: ${shorten(toml(value), 300)}`))))))))))
      : ""];
}

function closeButton() {
  const close = h("button", { type: "button", class: "close" }, "Close");
  close.addEventListener("click", () => dialog.close());
  return close;
}

function view(model) {
  const [rank, best, worst] = model.rank;
  const span = best !== worst ? ` (between ${best} and ${worst})` : "";
  const place = rank === null ? "not ranked: some of its cells are missing" : `rank ${rank}${span} on ${model.dataset}`;
  const failed = model.seeds.filter((seed) => seed.status !== "done");
  return [
    closeButton(),
    h("p", { class: "kicker" }, `${shorten(model.trainer, 60)} · ${shorten(model.network, 60)} · ${shorten(place, 160)}`),
    h("h2", { id: "model-title", tabindex: "-1", autofocus: "" }, shorten(model.name, 300)),
    model.card.description ? h("p", { class: "lead" }, shorten(model.card.description, 3000)) : "",
    model.card.paper ? h("p", { class: "paper" }, linked(shorten(model.card.paper, 500))) : "",
    h("dl", { class: "big" }, endsOf(model) ? endsFact(endsOf(model)) : DATA.columns[0].key === "worst_case" ? fact("worst case", model.summary.worst_case) : "", fact("clean", model.threats[DATA.threats.findIndex((threat) => threat.name === "clean")] ?? [null]),
      DATA.columns.filter((column) => column.key.startsWith("average_") || (model.vote && column.key.endsWith("_vote"))).map((column) => fact(column.label.toLowerCase(), model.summary[column.key]))),
    cost(model),
    failed.map((seed) => h("p", { class: "bad" }, `Seed ${seed.seed}: training ${seed.status}. ${shorten(seed.error ?? "", 500)}`)),
    twoSided(model), alarms(model), pictures(model), threatTable(model), classTable(model), charts(model),
    digests(model),
    h("h3", {}, "Card"), h("pre", { tabindex: "0" }, shorten(Object.entries(model.card).map(([key, value]) => `${key} = ${toml(value)}`).join("\n"), 12000)),
    h("details", {}, h("summary", {}, "Every setting, defaults written out"), h("pre", { tabindex: "0" }, shorten(JSON.stringify(model.fields, null, 1), 12000))),
  ].flat();
}

// The view that the fragment asks for: of two models, of one, or none.
function showAsked() {
  const pair = pairOf(state.compare), model = !pair && state.model && named(state.model);
  if (!pair && !model) {
    if (dialog.open) dialog.close();
    return;
  }
  dialog.replaceChildren(...(pair ? comparison(pair) : view(model)).filter((child) => child !== ""));
  dialog.scrollTop = 0;
  watchScrolls(dialog);
  if (dialog.open) return;
  // The focus comes back to the row, wherever in it the click was.
  const row = model && rows.find((one) => modelOf(one) === model);
  if (row && !row.contains(document.activeElement)) row.querySelector("a").focus({ preventScroll: true });
  dialog.showModal();
}
dialog.addEventListener("close", () => {
  dialog.replaceChildren();
  if (state.model || state.compare) {
    state.model = state.compare = "";
    remember();
  }
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog && event.clientX < dialog.getBoundingClientRect().left) dialog.close();
});

controls.hidden = false;
document.getElementById("static").hidden = true;
readFragment();
apply();
