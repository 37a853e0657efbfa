"use strict";
// Without this script every figure stays as it is; with it, pointing at a day reads its values.
for (const svg of document.querySelectorAll("svg[data-plots]")) {
  const plots = JSON.parse(svg.dataset.plots), start = svg.dataset.start;
  const cursor = svg.querySelector(".cursor"), figure = svg.closest("figure");
  const tip = figure.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
  const digits = (v) => (v >= 100 ? 0 : v >= 1 ? 1 : 3);
  const write = (v) => v.toLocaleString("en-US", { maximumFractionDigits: digits(Math.abs(v)) }).replace("-", "−");
  const name = (day) => {
    if (!start) return "Day " + day;
    const date = new Date(start + "T00:00:00Z");
    date.setUTCDate(date.getUTCDate() + day);
    return date.toLocaleDateString("en-GB", { timeZone: "UTC", day: "numeric", month: "short", year: "numeric" });
  };
  const hide = () => { tip.hidden = true; cursor.replaceChildren(); };
  const draw = (tag, attributes) => {
    const node = cursor.appendChild(document.createElementNS("http://www.w3.org/2000/svg", tag));
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    return node;
  };
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / frame.width;
    const x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
    const plot = plots.find((p) => x >= p.box[0] - 8 && x <= p.box[2] + 8 && y >= p.box[1] - 18 && y <= p.box[3] + 16);
    if (!plot) return hide();
    const [left, top, right, bottom] = plot.box, last = plot.series[0].values.length - 1;
    const day = last ? Math.min(last, Math.max(0, Math.round(((x - left) / (right - left)) * last))) : 0;
    const at = last ? left + ((right - left) * day) / last : (left + right) / 2;
    cursor.replaceChildren();
    draw("line", { x1: at, x2: at, y1: top, y2: bottom });
    tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: (plot.heading ? plot.heading + ", " : "") + name(day) }));
    for (const series of plot.series) {
      const value = series.values[day], least = plot.least ?? 0;
      draw("circle", { cx: at, cy: bottom - ((bottom - top) * (value - least)) / (plot.most - least), r: 3.5 }).style.fill = series.colour;
      const row = tip.appendChild(document.createElement("div"));
      row.textContent = (series.name ? series.name + ": " : "") + (plot.signed && value > 0 ? "+" : "") + write(value);
    }
    tip.hidden = false;
    const room = figure.clientWidth - tip.offsetWidth, across = frame.left - figure.getBoundingClientRect().left + at / scale;
    const beside = across + 12 <= room ? across + 12 : across - tip.offsetWidth - 12;
    tip.style.left = Math.max(0, Math.min(room, beside)) + "px";
    tip.style.top = frame.top - figure.getBoundingClientRect().top + top / scale + "px";
  });
  svg.addEventListener("pointerleave", hide);
}
