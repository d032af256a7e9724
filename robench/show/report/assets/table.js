// Sorting, filtering and choosing columns; the state lives in the URL's fragment.
// The page comes with the columns that are shown at first; cells of others are made when asked for.
// A large table keeps whole only the rows near the screen: of the others it has name and summary.
function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}
const DATA = await inflated(document.getElementById("data").textContent);
const board = document.getElementById("board");
const controls = document.getElementById("controls");
const rows = [...board.querySelectorAll("tr.m")];
const modelOf = (row) => DATA.models[Number(row.dataset.i)];
const FIRST_SHOWN = DATA.columns.map((column) => column.shown);
const state = { sort: "rank", dir: 1, q: "", trainer: "", network: "", dataset: "", model: "", compare: "", shown: [...FIRST_SHOWN] };
const LARGE = 2000; // numbers in the table, beyond which it counts as large
const CROWDED = 40; // columns, beyond which bars would cost more than they tell
const NEAR = 400; // pixels above and below the screen

const words = rows.map((row) => {
  const model = modelOf(row);
  return [model.name, model.trainer, model.network, model.dataset, model.card.description, model.card.paper]
    .join(" ").toLowerCase();
});
const TEXTS = ["name", "trainer"];
const entryOf = (model, column) => model[column.of][column.at];

function sortKey(place) {
  const model = modelOf(rows[place]);
  if (state.sort === "rank") return Number(rows[place].dataset.i);
  if (TEXTS.includes(state.sort)) return model[state.sort];
  return entryOf(model, DATA.columns[Number(state.sort)])[0] ?? NaN;
}

function sortRows() {
  const keys = rows.map((_, place) => sortKey(place));
  const compare = (a, b) => {
    // Incomplete rows stay below the others, and what has no number stays below what has one.
    const apart = Number(modelOf(rows[b]).complete) - Number(modelOf(rows[a]).complete);
    if (apart) return apart;
    const x = keys[a], y = keys[b];
    if (typeof x === "string") return state.dir * (x < y ? -1 : x > y ? 1 : 0) || a - b;
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
    return state.dir * (x - y) || a - b;
  };
  if (large) rows.forEach((_, place) => fill(place, lean)); // light to move
  for (const body of board.tBodies) {
    const own = rows.map((row, place) => place).filter((place) => rows[place].parentNode === body).sort(compare);
    body.append(...own.map((place) => rows[place]));
  }
  for (const head of board.querySelectorAll("thead th")) {
    const button = head.querySelector("button");
    if (button.dataset.sort === state.sort) head.setAttribute("aria-sort", state.dir > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  }
  settle();
}

function filterRows() {
  const asked = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  rows.forEach((row, place) => {
    const model = modelOf(row);
    const kept = asked.every((word) => words[place].includes(word)) &&
      ["trainer", "network", "dataset"].every((key) => !state[key] || model[key] === state[key]);
    row.hidden = !kept;
    count += kept;
  });
  for (const body of board.tBodies) {
    const heading = body.querySelector("tr.group");
    if (heading) heading.hidden = !body.querySelector("tr.m:not([hidden])");
  }
  document.getElementById("count").textContent = `${count} of ${rows.length} models`;
  settle();
}

// Which cells each row has: a mark that changes with the columns that are shown.
let large = false, whole = FIRST_SHOWN.join(), lean = whole;
const filled = rows.map(() => whole);

function cellOf(model, column) {
  const both = column.key === "worst_case" && endsOf(model);
  if (both) return endsCell(both);
  const kind = `n${column.summary ? " sum" : ""}${column.key === DATA.columns[0].key ? " headline" : ""}`;
  const entry = entryOf(model, column);
  if (entry[0] === null) return `<td class="${kind} none">–</td>`;
  const [value, low, high] = entry.map(tenths);
  const range = column.summary ? `<small>${low}–${high}</small>` : "";
  return `<td class="${kind}" style="--v:${value};--l:${low};--h:${high}">${value}${range}</td>`;
}

// Numbers only: what people named is never written as markup.
function fill(place, mark) {
  if (filled[place] === mark) return;
  const row = rows[place], old = document.createRange();
  old.setStartAfter(row.cells[2]);
  old.setEndAfter(row.lastChild);
  old.deleteContents();
  const shown = DATA.columns.filter((_, column) => state.shown[column]);
  const made = mark === whole ? shown : shown.filter((column) => column.summary);
  const rest = shown.length - made.length;
  row.insertAdjacentHTML("beforeend",
    made.map((column) => cellOf(modelOf(row), column)).join("") + (rest ? `<td class="rest" colspan="${rest}"></td>` : ""));
  filled[place] = mark;
}

// In a large table: whole rows near the screen (all of them on paper), lean ones elsewhere.
let printing = false;
function settle() {
  if (!large) return;
  const isNear = rows.map((row) => {
    const box = row.getBoundingClientRect();
    return printing || (box.height > 0 && box.bottom > -NEAR && box.top < innerHeight + NEAR);
  });
  isNear.forEach((near, place) => fill(place, near ? whole : lean));
}
let settling = 0;
for (const name of ["scroll", "resize"]) {
  addEventListener(name, () => {
    cancelAnimationFrame(settling);
    settling = requestAnimationFrame(settle);
  }, { passive: true, capture: true });
}
for (const name of ["beforeprint", "afterprint"]) {
  addEventListener(name, () => {
    printing = name === "beforeprint";
    settle();
  });
}

function showColumns() {
  const count = state.shown.filter(Boolean).length;
  const sums = DATA.columns.filter((column, place) => column.summary && state.shown[place]).length;
  large = rows.length * count > LARGE;
  whole = state.shown.join();
  lean = large ? `lean ${whole}` : whole;
  for (const button of board.querySelectorAll("thead th.n button")) {
    button.closest("th").hidden = !state.shown[Number(button.dataset.sort)];
  }
  for (const group of board.querySelectorAll("tr.group th")) group.colSpan = count + 3;
  // Columns of fixed width: no row but the first has a say in them.
  board.parentNode.classList.toggle("large", large);
  board.classList.toggle("crowded", count > CROWDED);
  board.style.width = large ? `calc(31rem + ${6.4 * count + 0.6 * sums}rem)` : "";
  rows.forEach((_, place) => fill(place, lean));
  settle();
  for (const box of controls.querySelectorAll("input[type=checkbox]")) box.checked = state.shown[Number(box.value)];
}

function fillControls() {
  for (const name of ["q", "trainer", "network", "dataset"]) {
    if (controls.elements[name]) controls.elements[name].value = state[name];
  }
}

function readFragment() {
  const said = new URLSearchParams(location.hash.slice(1));
  const sortable = new Set(["rank", "name", "trainer"]);
  const places = new Map(DATA.columns.map((column, place) => [column.key, String(place)]));
  const sort = said.get("sort");
  state.sort = sortable.has(sort) ? sort : places.get(sort) ?? "rank";
  state.dir = said.get("dir") === "desc" ? -1 : 1;
  for (const name of ["q", "trainer", "network", "dataset", "model", "compare"]) state[name] = said.get(name) ?? "";
  const chosen = said.getAll("col");
  state.shown = chosen.length ? DATA.columns.map((column) => chosen.includes(column.key)) : [...FIRST_SHOWN];
}

function fragment(change = {}) {
  const now = { ...state, ...change };
  const said = new URLSearchParams();
  const key = DATA.columns[Number(now.sort)]?.key ?? now.sort;
  if (key !== "rank") said.set("sort", key);
  if (now.dir < 0) said.set("dir", "desc");
  for (const name of ["q", "trainer", "network", "dataset"]) if (now[name]) said.set(name, now[name]);
  if (now.shown.some((shown, place) => shown !== FIRST_SHOWN[place])) {
    const chosen = DATA.columns.filter((_, place) => now.shown[place]);
    for (const column of chosen) said.append("col", column.key);
    if (!chosen.length) said.append("col", "");
  }
  for (const name of ["model", "compare"]) if (now[name]) said.set(name, now[name]);
  return "#" + said.toString();
}

function remember() {
  history.replaceState(null, "", fragment() === "#" ? location.pathname + location.search : fragment());
}

function apply() {
  fillControls();
  showColumns();
  sortRows();
  filterRows();
  fillPair();
  showAsked();
}

board.tHead.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const again = state.sort === button.dataset.sort;
  const text = ["rank", "name", "trainer"].includes(button.dataset.sort);
  state.dir = again ? -state.dir : text ? 1 : -1;
  state.sort = button.dataset.sort;
  sortRows();
  remember();
});

controls.addEventListener("input", (event) => {
  const input = event.target;
  if (input.type === "checkbox") {
    state.shown[Number(input.value)] = input.checked;
    showColumns();
  } else {
    state[input.name] = input.value;
    filterRows();
  }
  remember();
});
controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-columns]");
  if (!button) return;
  for (const box of button.closest("fieldset").querySelectorAll("input")) {
    state.shown[Number(box.value)] = button.dataset.columns === "all";
  }
  showColumns();
  remember();
});
document.getElementById("reset").addEventListener("click", () => {
  Object.assign(state, { sort: "rank", dir: 1, q: "", trainer: "", network: "", dataset: "", shown: [...FIRST_SHOWN] });
  apply();
  remember();
});
document.addEventListener("click", (event) => {
  const chooser = document.getElementById("chooser");
  if (chooser.open && !chooser.contains(event.target)) chooser.open = false;
});
document.addEventListener("keydown", (event) => {
  const chooser = document.getElementById("chooser");
  if (event.key === "Escape" && chooser.open) {
    chooser.open = false;
    chooser.querySelector("summary").focus();
  }
});

board.addEventListener("click", (event) => {
  const row = event.target.closest("tr.m");
  if (!row || event.ctrlKey || event.metaKey || event.shiftKey || String(getSelection())) return;
  event.preventDefault();
  location.hash = fragment({ model: modelOf(row).name, compare: "" });
});
// The interval in words, made only when asked for.
board.addEventListener("pointerover", (event) => {
  const cell = event.target.closest("td.n[style]");
  if (cell && !cell.title) {
    const part = (name) => cell.style.getPropertyValue(name);
    cell.title = part("--p") ? endsTitle(part) : `${part("--v")} (95%: ${part("--l")}–${part("--h")})`;
  }
});
addEventListener("hashchange", () => {
  if (location.hash.includes("=") || location.hash.length < 2) {
    readFragment();
    apply();
  }
});
