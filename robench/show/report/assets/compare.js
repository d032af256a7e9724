// Two models side by side: the paired difference under every threat, the images that only one of
// them gets, and both cards. Made from the answers that the page carries; nothing is fetched.
const LISTED = 60; // images that are named

const named = (name) => DATA.models.find((one) => one.name === name || shorten(one.name, 200) === name);

// `a,b`, where names may hold commas too.
function pairOf(text) {
  for (let at = text.indexOf(","); at >= 0; at = text.indexOf(",", at + 1)) {
    const pair = [named(text.slice(0, at)), named(text.slice(at + 1))];
    if (pair[0] && pair[1]) return pair;
  }
  return null;
}

// How often each image was right, in [0, 1].
function sharesOf(entry, images) {
  const bytes = atob(entry.bits), width = Math.floor(Math.log2(entry.levels)) + 1, found = [];
  for (let place = 0, bit = 0; place < images; place += 1) {
    let count = 0;
    for (let one = 0; one < width; one += 1, bit += 1) count = 2 * count + ((bytes.charCodeAt(bit >> 3) >> (7 - (bit & 7))) & 1);
    found.push(count / entry.levels);
  }
  return found;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const variance = (values) => mean(values.map((value) => (value - mean(values)) ** 2)) * values.length / (values.length - 1);

// The two-sided 95% quantile of Student's t: with t = sqrt(f) tan(angle) its density is a power of the cosine.
function quantile(freedom) {
  const z = 1.959963984540054;
  if (freedom > 200) return z + (z ** 3 + z) / (4 * freedom) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2);
  const steps = 20000, step = Math.PI / 2 / steps, sums = [0];
  for (let place = 0; place < steps; place += 1) sums.push(sums[place] + Math.cos((place + 0.5) * step) ** (freedom - 1));
  const wanted = 0.95 * sums[steps], after = sums.findIndex((sum) => sum >= wanted);
  return Math.sqrt(freedom) * Math.tan((after - 1 + (wanted - sums[after - 1]) / (sums[after] - sums[after - 1])) * step);
}

// The paired t-test of the ranks: variance over images, plus that between each model's seeds.
function paired(first, second, images) {
  const [one, other] = [first, second].map((entry) => sharesOf(entry, images));
  const differences = one.map((share, place) => share - other[place]);
  const fromImages = images > 1 ? variance(differences) / images : 0;
  const several = [first.seeds, second.seeds].filter(Boolean);
  const fromSeeds = several.map((means) => variance(means) / means.length);
  const total = fromSeeds.reduce((sum, part) => sum + part, fromImages);
  const spread = fromSeeds.reduce((sum, part, place) => sum + part ** 2 / (several[place].length - 1), images > 1 ? fromImages ** 2 / (images - 1) : 0);
  const half = total > 0 ? quantile(total ** 2 / spread) * Math.sqrt(total) : 0;
  const value = mean(differences), only = (mine, its) => mine.flatMap((share, place) => (share > 0.5 && its[place] <= 0.5 ? [place] : []));
  return { value, low: Math.max(-1, value - half), high: Math.min(1, value + half), first: only(one, other), second: only(other, one) };
}

const points = (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(100 * value).toFixed(1)}`;

function comparedRows(first, second) {
  const { of, models, images } = DATA.answers, places = [first, second].map((model) => DATA.models.indexOf(model));
  if (first.dataset !== second.dataset) return [];
  const numbers = images[first.dataset] ?? [];
  return of.flatMap(([where, at, label], column) => {
    const [one, other] = places.map((place) => models[place][column]);
    if (!one || !other) return [];
    return [{ label, one: first[where][at], other: second[where][at], numbers, ...paired(one, other, numbers.length) }];
  });
}

function comparedTable(first, second, lines) {
  const said = (line) => {
    const sure = line.low > 0 || line.high < 0;
    return h("td", { class: `n difference${sure ? " sure" : ""}` }, points(line.value), h("small", {}, `${points(line.low)} to ${points(line.high)}`));
  };
  const heads = ["difference", first.name, second.name, "only the first", "only the second"];
  return sideways("Both models under every threat", h("table", { class: "compared" },
    h("caption", { class: "hush" }, "Both models under every threat"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "threat"), heads.map((head) => h("th", { scope: "col", class: "n" }, shorten(head, 40))))),
    h("tbody", {}, lines.map((line) => h("tr", {}, h("th", { scope: "row" }, breakable(line.label)), said(line), interval(line.one), interval(line.other),
      h("td", { class: "n" }, String(line.first.length)), h("td", { class: "n" }, String(line.second.length)))))));
}

function imageLists(first, second, lines) {
  const list = (places, numbers) => {
    const shown = places.slice(0, LISTED).map((place) => numbers[place]).join(", ");
    return places.length ? shown + (places.length > LISTED ? ` and ${places.length - LISTED} more` : "") : "none";
  };
  const part = (model, places, numbers) => h("p", {}, h("strong", {}, `Only ${shorten(model.name, 60)}: `), list(places, numbers));
  return lines.map((line) => h("details", { class: "images" },
    h("summary", {}, `${its("Images")} under ${shorten(line.label, 60)}: ${line.first.length} only the first gets, ${line.second.length} only the second`),
    part(first, line.first, line.numbers), part(second, line.second, line.numbers)));
}

// Every setting of both, in tables within tables too; what differs first.
function flat(value, path = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[path, toml(value)]];
  return Object.entries(value).flatMap(([key, item]) => flat(item, path ? `${path}.${key}` : key));
}

function cardsTable(first, second) {
  const [one, other] = [first, second].map((model) => new Map(flat(model.card)));
  const keys = [...new Set([...one.keys(), ...other.keys()])];
  const differs = (key) => one.get(key) !== other.get(key);
  const line = (key) => h("tr", differs(key) ? { class: "differs" } : {}, h("th", { scope: "row" }, breakable(key)),
    [one, other].map((card) => h("td", {}, h("code", {}, shorten(card.get(key) ?? "–", 400)))));
  return sideways("Both cards", h("table", { class: "cards" }, h("caption", { class: "hush" }, "Both cards"),
    h("thead", {}, h("tr", {}, ["setting", first.name, second.name].map((head) => h("th", { scope: "col" }, shorten(head, 60))))),
    h("tbody", {}, [...keys.filter(differs), ...keys.filter((key) => !differs(key))].map(line))));
}

function comparison([first, second]) {
  const lines = comparedRows(first, second);
  const why = first.dataset === second.dataset ? its("Of no threat both have answers on the same images here.") : "They are of different data sets, and what they keep cannot be compared.";
  const left = DATA.answers.left_out ? ` ${DATA.answers.left_out} more threats are left out here to keep the page small; cells.parquet has every ${its("image")}.` : "";
  return [
    closeButton(),
    h("p", { class: "kicker" }, "Two models compared"),
    h("h2", { id: "model-title", tabindex: "-1", autofocus: "" }, `${shorten(first.name, 120)} against ${shorten(second.name, 120)}`),
    ...(lines.length ? [
      h("p", { class: "note" }, its("Accuracy in per cent; the difference is the first less the second in points, image by image on the same images, with its 95% interval (paired t, over images and seeds; bold where it excludes 0, without a correction for many comparisons). A model gets an image that it answers rightly in more than half of its draws and seeds.") + left),
      comparedTable(first, second, lines), h("h3", {}, its("Images that one gets and the other does not")), ...imageLists(first, second, lines),
    ] : [h("p", {}, why)]),
    h("h3", {}, "Both cards"), cardsTable(first, second),
  ];
}

// Where two models are chosen: the second list has what may be compared with the first.
const pairControls = document.getElementById("pair");
function fillPair() {
  if (DATA.models.length < 2) return;
  const [first, second] = pairControls.querySelectorAll("select");
  const chosen = pairOf(state.compare) ?? [DATA.models.find((one) => one.name === first.value), DATA.models.find((one) => one.name === second.value)];
  const fill = (select, models, now) => {
    select.replaceChildren(h("option", { value: "" }, "–"), ...models.map((model) => h("option", { value: model.name }, shorten(model.name, 60))));
    select.value = models.includes(now) ? now.name : "";
  };
  fill(first, DATA.models, chosen[0]);
  fill(second, DATA.models.filter((model) => chosen[0] && model !== chosen[0] && model.dataset === chosen[0].dataset), chosen[1]);
  pairControls.hidden = false;
}
pairControls.addEventListener("input", (event) => {
  event.stopPropagation(); // they are no filters
  fillPair();
  const [first, second] = [...pairControls.querySelectorAll("select")].map((select) => select.value);
  if (first && second) location.hash = fragment({ model: "", compare: `${first},${second}` });
});
