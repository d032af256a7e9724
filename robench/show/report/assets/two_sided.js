// Both ends of a model: the headline's cell, and in the view of a model every ball, image by image.
const endsOf = (model, key = "") => {
  const [proved, attacked] = key ? [`proved@${key}`, `attacked@${key}`] : ["proved", "worst_case"];
  const [low, high] = [model.summary[proved], model.summary[attacked]];
  const word = model.certified ? "certified" : "proved";
  return low && high && low[0] !== null && high[0] !== null ? { low, high, word } : null;
};
const endsStyle = ({ low, high }) => [["p", low[0]], ["pl", low[1]], ["ph", low[2]], ["v", high[0]], ["l", high[1]], ["h", high[2]]]
  .map(([name, value]) => `--${name}:${tenths(value)}`).join(";");

const FEW = 4; // maps of a model that are open at first

// Numbers only: what people named is never written as markup.
function endsCell({ low, high, word }) {
  return `<td class="n sum headline two" style="${endsStyle({ low, high })}"><span><i>${word}</i> ${tenths(low[0])} –</span> ` +
    `<span><i>attacked</i> ${tenths(high[0])}</span><small>${tenths(low[1])}–${tenths(high[2])}</small></td>`;
}

function endsTitle(part) {
  return `proved ${part("--p")} (95%: ${part("--pl")}–${part("--ph")}), attacked ${part("--v")} (95%: ${part("--l")}–${part("--h")})`;
}

function endsFact(found) {
  return h("div", {}, h("dt", {}, `${found.word} – attacked`),
    h("dd", {}, `${tenths(found.low[0])} – ${tenths(found.high[0])}`, h("small", {}, `${tenths(found.low[1])}–${tenths(found.high[2])}`)));
}

// One square for each image: filled where it is proved, hollow where it is open, pale where it is broken.
function stateMap(states, label) {
  const across = states.length <= 64 ? states.length : 50, side = 8, gap = 2, rows = Math.ceil(states.length / across);
  const width = Math.min(across, states.length) * (side + gap) - gap;
  const squares = ["b", "p", "o"].map((kind) => {
    const inset = kind === "o" ? 0.8 : 0, size = side - 2 * inset;
    const path = [...states].flatMap((state, i) => (state === kind
      ? [`M${(i % across) * (side + gap) + inset} ${Math.floor(i / across) * (side + gap) + inset}h${size}v${size}h${-size}z`] : []));
    return path.length ? h("path", { class: kind, d: path.join("") }) : "";
  });
  return h("svg", { class: "states", style: `max-width:${width / 16}rem`, viewBox: `0 0 ${width} ${rows * (side + gap) - gap}`, role: "img", "aria-label": label }, squares);
}

function twoSided(model) {
  if (!model.ends?.length) return [];
  const count = (states, kind) => [...states].filter((state) => state === kind).length;
  const balls = model.ends.map((one) => ({ ...one, found: endsOf(model, one.key) ?? endsOf(model) })).filter((one) => one.found);
  const line = ({ ball, found, open, attacks }) => h("tr", {}, h("th", { scope: "row" }, ball),
    h("td", { class: "n ends", style: endsStyle(found) }, h("i", {}, `${found.word} `), tenths(found.low[0]), " – ", h("i", {}, "attacked "), tenths(found.high[0])),
    h("td", { class: "n" }, tenths(found.low[1]), "–", tenths(found.low[2])), h("td", { class: "n" }, tenths(found.high[1]), "–", tenths(found.high[2])),
    h("td", { class: "n" }, tenths(Math.max(found.high[0] - found.low[0], 0))), h("td", { class: "n" }, attacks));
  const maps = balls.filter((one) => one.states).flatMap((one) => one.states.map((states, place) => {
    const told = `${count(states, "p")} proved, ${count(states, "o")} open, ${count(states, "b")} broken`;
    const which = `${one.ball}${one.states.length > 1 ? `, seed ${model.seeds[place].seed}` : ""}: ${told}`;
    return h("figure", { class: "strip" }, h("figcaption", {}, which), stateMap(states, which));
  }));
  const tried = balls.filter((one) => one.asked).map(({ ball, asked, median, longest, why }) =>
    `${ball}: the program was asked about ${asked} ${its("images")} that attacks had left, ${number(median)} s each in the median, ${number(longest)} s at most.` +
    (why ? ` Open: ${Object.entries(why).map(([text, images]) => `${images} (${text})`).join("; ")}.` : ""));
  return [h("h3", {}, "Proved and attacked"),
    model.certified ? h("p", {}, `Certified by its noise under every perturbation: ${model.certified}.`) : "",
    sideways("Proved and attacked", h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "ball"), ["both ends", "proved, 95%", "attacked, 95%", "open", "attacks and proofs"].map((head) => h("th", { scope: "col", class: "n" }, head)))),
      h("tbody", {}, balls.map(line)))),
    tried.length ? h("ul", { class: "note" }, tried.map((one) => h("li", {}, one))) : "",
    maps.length ? h("details", maps.length > FEW ? {} : { open: "" }, h("summary", {}, its("Image by image")),
      h("p", { class: "note" }, its("A square is a test image, in the order of the test set: filled where it is proved, hollow where it is open, pale where it is broken.")), maps) : ""];
}
