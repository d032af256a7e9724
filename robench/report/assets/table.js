// Sorting, filtering and choosing columns; the state lives in the URL's fragment.
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const board = document.getElementById("board");
const controls = document.getElementById("controls");
const rows = [...board.querySelectorAll("tr.m")];
const modelOf = (row) => DATA.models[Number(row.dataset.i)];
const FIRST_SHOWN = DATA.columns.map((column) => column.shown);
const state = { sort: "rank", dir: 1, q: "", trainer: "", network: "", dataset: "", model: "", shown: [...FIRST_SHOWN] };

const numbers = rows.map((row) => {
  const cells = row.getElementsByClassName("n");
  return Float64Array.from(cells, (cell) => parseFloat(cell.textContent));
});
const words = rows.map((row) => {
  const model = modelOf(row);
  return [model.name, model.trainer, model.network, model.dataset, model.card.description, model.card.paper]
    .join(" ").toLowerCase();
});

function sortKey(place) {
  const model = modelOf(rows[place]);
  if (state.sort === "rank") return Number(rows[place].dataset.i);
  if (state.sort === "name" || state.sort === "trainer") return model[state.sort];
  return numbers[place][Number(state.sort)];
}

function compare(a, b) {
  // Incomplete rows stay below the others, and what has no number stays below what has one.
  const apart = Number(modelOf(rows[b]).complete) - Number(modelOf(rows[a]).complete);
  if (apart) return apart;
  const x = sortKey(a), y = sortKey(b);
  if (typeof x === "string") return state.dir * (x < y ? -1 : x > y ? 1 : 0) || a - b;
  if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
  return state.dir * (x - y) || a - b;
}

function sortRows() {
  for (const body of board.tBodies) {
    const own = rows.map((row, place) => place).filter((place) => rows[place].parentNode === body).sort(compare);
    body.append(...own.map((place) => rows[place]));
  }
  for (const head of board.querySelectorAll("thead th")) {
    const button = head.querySelector("button");
    if (button.dataset.sort === state.sort) head.setAttribute("aria-sort", state.dir > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  }
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
}

function showColumns() {
  const off = state.shown.flatMap((shown, place) => (shown ? [] : [`.c${place}`]));
  document.getElementById("hidden-columns").textContent = off.length ? `${off.join()}{display:none}` : "";
  // Bars on thousands of cells would cost more than they tell.
  board.classList.toggle("dense", state.shown.length - off.length > 40);
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
  for (const name of ["q", "trainer", "network", "dataset", "model"]) state[name] = said.get(name) ?? "";
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
  if (now.model) said.set("model", now.model);
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
  showModel(state.model);
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
  location.hash = fragment({ model: modelOf(row).name });
});
// The interval in words, made only when asked for.
board.addEventListener("pointerover", (event) => {
  const cell = event.target.closest("td.n[style]");
  if (cell && !cell.title) {
    const part = (name) => cell.style.getPropertyValue(name);
    cell.title = `${part("--v")} (95%: ${part("--l")}–${part("--h")})`;
  }
});
addEventListener("hashchange", () => {
  if (location.hash.includes("=") || location.hash.length < 2) {
    readFragment();
    apply();
  }
});
