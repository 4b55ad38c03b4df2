// Lay a page out as columns of the paper's size, and shrink each figure that would miss the column before by little.
([width, height, least]) => {
  const main = document.querySelector("main:has(figure img)");
  if (!main) return;
  const shown = [...main.querySelectorAll("h2, h3, p, li, pre, tr, summary, svg, img")].filter(block => block.getClientRects().length);
  Object.assign(main.style, { width: `${width}mm`, height: `${height}mm`, columnWidth: `${width}mm`, columnGap: 0, columnFill: "auto" });
  const column = rect => Math.floor((rect.left - main.offsetLeft + 1) / main.clientWidth);
  const top = main.getBoundingClientRect().top;
  for (const image of shown.filter(block => block.matches("figure img"))) {
    const figure = image.closest("figure"), at = figure.getBoundingClientRect(), place = column(at);
    const rects = shown.flatMap(block => [...block.getClientRects()]);
    if (!place || rects.some(rect => column(rect) === place && rect.top < image.getBoundingClientRect().top - 1)) continue;
    const end = Math.max(...rects.filter(rect => column(rect) === place - 1).map(rect => rect.bottom)) - top;
    const margin = 2 * parseFloat(getComputedStyle(figure).marginTop);
    const scale = (main.clientHeight - end - margin - at.height + image.height) / image.height;
    if (scale < least || scale >= 1) continue;
    image.style.width = `${scale * image.width}px`;
    if (column(figure.getBoundingClientRect()) === place) image.style.width = "";
  }
  main.removeAttribute("style");
}
