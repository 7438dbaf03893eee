// Sorts tables by a click on a heading and filters the table of amplifiers; the page does without.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th").forEach((heading, column) => {
    let direction = 1;
    heading.addEventListener("click", () => {
      const key = (row) => {
        const cell = row.cells[column];
        const value = parseFloat(cell.dataset.value);
        return cell.dataset.value === undefined ? cell.textContent : Number.isNaN(value) ? Infinity : value;
      };
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, two) => {
        const a = key(one), b = key(two);
        return direction * (typeof a === "number" ? a - b || 0 : a.localeCompare(b, undefined, { numeric: true }));
      });
      direction = -direction;
      table.tBodies[0].append(...rows);
    });
  });
}
document.getElementById("filter")?.addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const row of document.querySelectorAll("#summary tbody tr")) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
});
