"use strict";

// Tables: a click on a column's name sorts by it, a second one the other way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      // Numbers begin with the best, words with A.
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows];
      const numeric = rows.every((row) => value(row) !== "" && !isNaN(value(row)));
      const before = head.getAttribute("aria-sort");
      const first = numeric && column > 0 ? "descending" : "ascending";
      const second = first === "descending" ? "ascending" : "descending";
      const order = before === first ? second : first;
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => sign * (numeric ? value(a) - value(b) : value(a).localeCompare(value(b))));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      table.tBodies[0].append(...rows);
    });
  });
}

// Figures: the numbers of every curve at the x nearest to the pointer; the nearest curve's in bold.
const data = JSON.parse(document.getElementById("figure-data").textContent);
const tip = document.getElementById("tip");

for (const figure of document.querySelectorAll("figure.panel")) {
  const panel = data[figure.dataset.panel];
  const svg = figure.querySelector("svg");

  const points = () =>
    panel.lines.flatMap((line) =>
      [...svg.querySelectorAll(`[id="${figure.dataset.panel}-curve-${line.number}"] use`)].map((mark, place) => {
        const box = mark.getBoundingClientRect();
        return { line, place, x: box.x + box.width / 2, y: box.y + box.height / 2 };
      }),
    );

  const show = (event) => {
    const all = points();
    if (!all.length) return;
    const nearest = all.reduce((a, b) => (Math.abs(b.x - event.clientX) < Math.abs(a.x - event.clientX) ? b : a));
    const here = all.filter((point) => Math.abs(point.x - nearest.x) < 1);
    const closest = here.reduce((a, b) => (Math.abs(b.y - event.clientY) < Math.abs(a.y - event.clientY) ? b : a));
    here.sort((a, b) => b.line.y[b.place] - a.line.y[a.place]);

    tip.replaceChildren(`${panel.x} = ${nearest.line.x[nearest.place]}`);
    for (const point of here) {
      const row = document.createElement(point === closest ? "b" : "span");
      row.textContent = `\n${point.line.name}  ${point.line.text[point.place]}`;
      tip.append(row);
    }
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 6);
    const below = event.clientY + 18 + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(4, left) + window.scrollX}px`;
    tip.style.top = `${(below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 12) + window.scrollY}px`;
  };

  figure.addEventListener("pointermove", show);
  figure.addEventListener("pointerdown", show);
  // A finger leaves as soon as it is lifted: what it asked for stays, until it touches something else.
  figure.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") tip.hidden = true;
  });
}
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest("figure.panel")) tip.hidden = true;
});

// Legends: a name dims every other curve.
for (const entry of document.querySelectorAll(".legend li")) {
  const dim = (on) => {
    for (const group of document.querySelectorAll('figure [id*="-curve-"], figure [id*="-band-"]')) {
      group.classList.toggle("dim", on && !group.id.endsWith(`-${entry.dataset.line}`));
    }
  };
  for (const kind of ["pointerenter", "focus"]) entry.addEventListener(kind, () => dim(true));
  for (const kind of ["pointerleave", "blur"]) entry.addEventListener(kind, () => dim(false));
}
