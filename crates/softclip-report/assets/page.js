// Sorts a table by the column whose heading is pressed: numbers by value, words by the alphabet, dashes last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const column = heading.cellIndex;
    const body = heading.closest("table").tBodies[0];
    // Numbers start with the largest.
    const first = heading.classList.contains("number") ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const h of heading.parentElement.cells) h.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      const [x, y] = [a.cells[column], b.cells[column]];
      const dash = (c) => c.textContent === "–";
      if (dash(x) || dash(y)) return dash(x) - dash(y);
      if ("value" in x.dataset && "value" in y.dataset) return sign * (x.dataset.value - y.dataset.value);
      return sign * x.textContent.localeCompare(y.textContent);
    };
    body.append(...[...body.rows].sort(compare));
  });
}
