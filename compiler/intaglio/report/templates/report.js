"use strict";
document.documentElement.classList.add("js");

// A table sorts by the column whose heading is pressed: numbers by data-v, else text.
function sortBy(th) {
  const body = th.closest("table").tBodies[0];
  const column = [...th.parentNode.children].indexOf(th);
  const first = th.dataset.first || "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = th.getAttribute("aria-sort") === first ? other : first;
  for (const one of th.parentNode.children) one.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", order);
  const key = (row) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
  };
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...body.rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
  body.append(...rows.map(([, row]) => row));
}

for (const th of document.querySelectorAll("table.sorts thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...th.childNodes);
  button.addEventListener("click", () => sortBy(th));
  th.append(button);
}

// The filter of a long table hides the rows without its words.
for (const input of document.querySelectorAll("input[data-filters]")) {
  const rows = [...document.getElementById(input.dataset.filters).tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row, i) => { row.hidden = !words.every((word) => texts[i].includes(word)); });
  });
}

// The time axis: wider drawings in a column that scrolls, the middle stays where it is.
for (const tools of document.querySelectorAll("[data-zooms]")) {
  const wide = document.getElementById(tools.dataset.zooms), frame = wide.parentNode;
  let zoom = 1;
  tools.addEventListener("click", (event) => {
    const factor = Number(event.target.dataset.by);
    if (Number.isNaN(factor)) return;
    const middle = (frame.scrollLeft + frame.clientWidth / 2) / wide.clientWidth;
    zoom = factor === 0 ? 1 : Math.min(Math.max(zoom * factor, 1), 64);
    wide.style.width = `${100 * zoom}%`;
    frame.scrollLeft = middle * wide.clientWidth - frame.clientWidth / 2;
  });
}

// What a mark of a chart is, beside the pointer and at once.
const tip = document.createElement("div");
tip.id = "tip";
document.body.append(tip);
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest?.("svg *");
  const title = mark?.querySelector(":scope > title");
  if (title) { mark.dataset.tip = title.textContent; title.remove(); }
  const text = mark?.dataset.tip;
  tip.style.display = text ? "block" : "none";
  if (!text) return;
  tip.textContent = text;
  const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const y = event.clientY + tip.offsetHeight + 24 > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 16;
  tip.style.left = `${x}px`;
  tip.style.top = `${y}px`;
});
