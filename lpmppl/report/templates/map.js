"use strict";
(async () => {
const $ = (id) => document.getElementById(id);
const about = JSON.parse($("about").textContent), days = about.days, many = about.areas.length;
const fail = (text) => { $("trouble").textContent = text; $("trouble").hidden = false; for (const e of document.querySelectorAll(".live")) e.hidden = true; };
let bytes;
try {
  const packed = Uint8Array.from(atob($("blob").textContent), (c) => c.charCodeAt(0));
  bytes = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
} catch { return fail("This browser can't unpack the map's numbers; a newer one can. The totals are in the table below."); }
$("figures").open = false;

// Numbers: every array is (world, day, area), in the fewest bytes that hold it.
const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };
const unpack = (ref) => { const K = KINDS[ref.kind]; return new K(bytes.slice(ref.at, ref.at + ref.count * K.BYTES_PER_ELEMENT)); };
const residents = about.people || about.areas.map(() => NaN), everybody = residents.reduce((a, b) => a + b, 0);
const pick = { tally: 0, left: 0, right: about.worlds.length > 1 ? 1 : 0, view: about.worlds.length > 1 ? "both" : "one", measure: "rate", series: "week", day: 0, kept: -1, over: -1 };
const SERIES = { daily: "Each day", week: "7-day mean", sum: "So far" }, MEASURES = { rate: "Per 1,000", count: "Counts" }, VIEWS = { both: "Side by side", gap: "Difference" };
const tally = () => about.tallies[pick.tally];
const seriesNow = () => (tally().stock && pick.series === "sum" ? "daily" : pick.series);
const measureNow = () => (tally().people && about.people ? pick.measure : "count");
const plainMeans = new Map();
const means = (t) => { if (!plainMeans.has(t)) plainMeans.set(t, unpack(t.mean)); return plainMeans.get(t); };

function follow(x, width) { // one world's days as the series that is shown; x is (day, width)
  const kind = seriesNow();
  if (kind === "daily") return Float64Array.from(x);
  const out = new Float64Array(x.length);
  for (let a = 0; a < width; a++) {
    let total = 0;
    for (let d = 0; d < days; d++) {
      if (kind === "sum") { total += x[d * width + a]; out[d * width + a] = total; continue; }
      let sum = 0;
      for (let e = Math.max(0, d - 6); e <= d; e++) sum += x[e * width + a];
      out[d * width + a] = sum / Math.min(7, d + 1);
    }
  }
  return out;
}
const head = (a) => (measureNow() === "rate" ? (residents[a] > 0 ? 1000 / residents[a] : NaN) : 1);
const headAll = () => (measureNow() === "rate" ? 1000 / everybody : 1);

// What is shown: per map the values by area, the ends of their bands, and the curve of everybody.
let shown = [], most = 1;
function world(w) {
  const part = means(tally()).subarray(w * days * many, (w + 1) * days * many), x = follow(part, many);
  const all = new Float64Array(days);
  for (let d = 0; d < days; d++) { let s = 0; for (let a = 0; a < many; a++) { const v = x[d * many + a]; if (!Number.isNaN(v)) s += v; } all[d] = s; }
  return { x, all };
}
function bands(kind, w) {
  const refs = tally()[kind] && tally()[kind][seriesNow()];
  return refs ? refs.map((ref) => unpack(ref).subarray(w * days * many, (w + 1) * days * many)) : null;
}
function prepare() {
  const whose = pick.view === "both" ? [pick.left, pick.right] : [pick.view === "gap" ? pick.right : pick.left];
  shown = whose.map((w) => ({ ...world(w), band: bands("band", w), name: about.worlds[w] }));
  if (pick.view === "gap") {
    const base = world(pick.left), one = shown[0];
    shown = [{ x: one.x.map((v, i) => v - base.x[i]), all: one.all.map((v, i) => v - base.all[i]), band: pick.left === 0 && pick.right > 0 ? bands("gap", pick.right - 1) : null, name: about.worlds[pick.right] + " less " + about.worlds[pick.left], gap: true }];
  }
  most = 0;
  for (const one of shown) for (let i = 0; i < one.x.length; i++) { const v = Math.abs(one.x[i] * head(i % many)); if (v > most && Number.isFinite(v)) most = v; }
}
const value = (one, a, d = pick.day) => one.x[d * many + a] * head(a);
const ends = (one, a, d = pick.day) => one.band && one.band.map((end) => end[d * many + a] * head(a));

// Colours: lightness rises or falls all the way, so that they read the same to the colour-blind and in grey.
const dark = matchMedia("(prefers-color-scheme: dark)"), calm = matchMedia("(prefers-reduced-motion: reduce)");
const RAMPS = {
  light: { one: [[0.965, 0.02, 95], [0.89, 0.09, 85], [0.77, 0.145, 55], [0.63, 0.18, 25], [0.49, 0.165, 350], [0.37, 0.135, 315], [0.27, 0.1, 295]], two: [[0.42, 0.13, 255], [0.62, 0.12, 245], [0.8, 0.07, 240], [0.955, 0.004, 90], [0.82, 0.085, 70], [0.65, 0.13, 55], [0.46, 0.12, 45]] },
  dark: { one: [[0.27, 0.03, 285], [0.36, 0.1, 300], [0.47, 0.15, 335], [0.6, 0.175, 10], [0.72, 0.155, 45], [0.84, 0.12, 80], [0.95, 0.06, 95]], two: [[0.82, 0.1, 235], [0.65, 0.12, 245], [0.46, 0.09, 250], [0.29, 0.006, 260], [0.46, 0.085, 55], [0.66, 0.125, 60], [0.84, 0.11, 75]] },
};
function oklab([L, C, h]) { const t = (h * Math.PI) / 180; return [L, C * Math.cos(t), C * Math.sin(t)]; }
function srgb([L, a, b]) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3, m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3, s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const rgb = [4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s, -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s, -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s];
  return "#" + rgb.map((u) => Math.round(255 * Math.min(1, Math.max(0, u <= 0.0031308 ? 12.92 * u : 1.055 * u ** (1 / 2.4) - 0.055))).toString(16).padStart(2, "0")).join("");
}
function mix(ramp, share) {
  const at = Math.min(1, Math.max(0, share)) * (ramp.length - 1), k = Math.min(ramp.length - 2, Math.floor(at)), f = at - k;
  const a = oklab(ramp[k]), b = oklab(ramp[k + 1]);
  return srgb(a.map((v, i) => v + f * (b[i] - v)));
}
const ramp = () => RAMPS[dark.matches ? "dark" : "light"][pick.view === "gap" ? "two" : "one"];
const colour = (v) => mix(ramp(), most > 0 ? (pick.view === "gap" ? 0.5 + v / most / 2 : v / most) : pick.view === "gap" ? 0.5 : 0);

// Words
const digits = (v) => (v >= 100 || v === Math.round(v) ? 0 : v >= 10 ? 1 : v >= 1 ? 2 : v >= 0.01 ? 3 : 5);
const write = (v) => (Number.isFinite(v) ? (v < 0 ? "−" : "") + Math.abs(v).toLocaleString("en-US", { maximumFractionDigits: digits(Math.abs(v)) }) : "no data");
const signed = (v, gap) => (gap && v > 0 ? "+" : "") + write(v);
function dayName(day) {
  if (!about.start) return "Day " + day;
  const date = new Date(about.start + "T00:00:00Z");
  date.setUTCDate(date.getUTCDate() + day);
  return date.toLocaleDateString("en-GB", { timeZone: "UTC", day: "numeric", month: "short", year: "numeric" });
}
const unit = () => (measureNow() === "rate" ? "per 1,000 people" : tally().unit.replace(/ per day$/, "") || "people") + (tally().stock || seriesNow() === "sum" ? "" : " a day");
const title = (a) => about.areas[a].name + (about.areas[a].group ? ", " + about.areas[a].group : "");
function reading(one, a) {
  const v = value(one, a), range = ends(one, a);
  return signed(v, one.gap) + (range && Number.isFinite(v) ? " (" + range.map((e) => signed(e, one.gap)).join(" to ") + ")" : "");
}

// Maps
const NS = "http://www.w3.org/2000/svg";
function svg(parent, tag, attributes = {}) { const node = parent.appendChild(document.createElementNS(NS, tag)); for (const k in attributes) node.setAttribute(k, attributes[k]); return node; }
function el(parent, tag, text = "", attributes = {}) { const node = parent.appendChild(document.createElement(tag)); node.textContent = text; for (const k in attributes) node.setAttribute(k, attributes[k]); return node; }
const HEX = [0, 1, 2, 3, 4, 5].map((k) => [Math.cos(((60 * k - 30) * Math.PI) / 180), Math.sin(((60 * k - 30) * Math.PI) / 180)].map((v) => v / Math.sqrt(3)));
const path = (x, y) => "M" + HEX.map(([u, v]) => (x + u).toFixed(3) + " " + (y + v).toFixed(3)).join("L") + "Z";
const first = about.areas.map((_, a) => about.cells.findIndex((c) => c[2] === a));
function box() {
  let [l, t, r, b] = [Infinity, Infinity, -Infinity, -Infinity];
  const take = (x, y, w, h) => { l = Math.min(l, x - w); r = Math.max(r, x + w); t = Math.min(t, y - h); b = Math.max(b, y + h); };
  for (const [x, y] of about.cells) take(x, y, 0.5, 0.58);
  for (const g of about.groups) take(g.label[0], g.label[1], 0.16 * g.name.length, 0.35);
  return [l - 0.15, t - 0.15, r - l + 0.3, b - t + 0.3].map((v) => v.toFixed(3)).join(" ");
}
let maps = [];
function build() {
  const active = document.activeElement && document.activeElement.closest && document.activeElement.closest(".hex");
  $("maps").replaceChildren();
  $("maps").className = "maps" + (shown.length > 1 ? " two" : "");
  $("stage").className = "stage" + (shown.length > 1 ? "" : " single");
  maps = shown.map((one, m) => {
    const figure = el($("maps"), "figure", "", { class: "map" }), caption = el(figure, "figcaption");
    el(caption, "span", about.worlds.length > 1 ? one.name : "");
    const sum = el(caption, "b"), draw = svg(figure, "svg", { viewBox: box(), role: "group", "aria-label": "Map: " + (about.worlds.length > 1 ? one.name : tally().label) });
    const hexes = about.cells.map(([x, y, a], c) => {
      const node = svg(draw, "path", { d: path(x, y), class: "hex", role: "button", "data-area": a, tabindex: c === 0 ? 0 : -1 });
      node.addEventListener("pointerenter", (e) => { if (e.pointerType !== "touch") point(a, node); });
      node.addEventListener("focus", () => { for (const h of hexes) h.tabIndex = h === node ? 0 : -1; point(a, node); speak(a); });
      node.addEventListener("blur", () => point(-1));
      node.addEventListener("click", () => { keep(a === pick.kept ? -1 : a); point(a, node); });
      node.addEventListener("keydown", (e) => step(e, c, hexes, a));
      return node;
    });
    draw.addEventListener("pointerleave", () => point(-1));
    about.groups.forEach((g, k) => svg(draw, "path", { d: g.path, class: "border", style: "stroke: var(--g" + (k % 5) + ")" }));
    about.groups.forEach((g, k) => { svg(draw, "text", { x: g.label[0], y: g.label[1], style: "fill: var(--g" + (k % 5) + ")" }).textContent = g.name; });
    const rings = svg(draw, "g");
    return { one, hexes, sum, rings, m };
  });
  if (active) maps[0].hexes[first[+active.dataset.area]].focus();
}
function step(e, c, hexes, a) {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
  if (e.key === "Enter" || e.key === "Escape") { keep(e.key === "Escape" || a === pick.kept ? -1 : a); e.preventDefault(); e.stopPropagation(); return; }
  if (!way) return;
  e.preventDefault(); e.stopPropagation();
  let best = -1, least = Infinity;
  about.cells.forEach(([x, y], k) => {
    const dx = x - about.cells[c][0], dy = y - about.cells[c][1], along = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
    if (along > 0.1 && along + 2.5 * aside < least) { least = along + 2.5 * aside; best = k; }
  });
  if (best >= 0) hexes[best].focus();
}
function ring() {
  for (const map of maps) {
    map.rings.replaceChildren();
    for (const a of new Set([pick.kept, pick.over])) for (const mark of ["halo", "ring"]) about.cells.forEach(([x, y, b]) => { if (a >= 0 && a === b) svg(map.rings, "path", { d: path(x, y), class: mark }); });
  }
}
function paint() {
  for (const { one, hexes, sum } of maps) {
    about.cells.forEach(([, , a], c) => {
      const v = value(one, a), fine = Number.isFinite(v), node = hexes[c];
      node.style.fill = fine ? colour(v) : "";
      node.classList.toggle("none", !fine);
      node.dataset.value = v;
      node.setAttribute("aria-label", title(a) + ": " + reading(one, a) + " " + unit());
    });
    sum.textContent = signed(one.all[pick.day] * headAll(), one.gap) + " " + unit();
  }
  $("date").textContent = dayName(pick.day);
  $("date").dataset.day = pick.day;
  $("day").value = pick.day;
  $("day").setAttribute("aria-valuetext", dayName(pick.day));
  cursor();
  if (pick.over >= 0) tip();
}

// What a hexagon says
let spot = null;
function point(a, node = null) {
  if (a === pick.over && !node) return;
  pick.over = a; spot = node;
  ring();
  $("tip").hidden = a < 0;
  if (a >= 0) tip();
}
function lines(a) {
  const said = shown.map((one) => (about.worlds.length > 1 ? one.name + ": " : "") + reading(one, a) + " " + unit());
  return about.people ? [...said, write(residents[a]) + " people"] : said;
}
function tip() {
  const card = $("tip"), a = pick.over;
  card.replaceChildren();
  el(card, "b", about.areas[a].name);
  if (about.areas[a].group) el(card, "span", about.areas[a].group, { class: "aside" });
  lines(a).forEach((text, k, all) => el(card, "span", text, about.people && k === all.length - 1 ? { class: "aside" } : {}));
  if (!spot) return;
  const at = spot.getBoundingClientRect(), wide = document.documentElement.clientWidth;
  card.style.left = card.style.top = "0px";
  const left = Math.max(6, Math.min(wide - card.offsetWidth - 6, at.left + at.width / 2 - card.offsetWidth / 2));
  const above = at.top - card.offsetHeight - 8, top = above > 4 ? above : at.bottom + 8;
  card.style.left = left + scrollX + "px";
  card.style.top = top + scrollY + "px";
}
const speak = (a) => { $("reader").textContent = dayName(pick.day) + ". " + title(a) + ". " + lines(a).join(". "); };
function keep(a) { pick.kept = a; ring(); curve(); }

// The legend
function legend() {
  const gap = pick.view === "gap", marks = most > 0 ? (gap ? [-most, 0, most] : [0, most / 2, most]) : [0], steps = [...Array(25).keys()].map((k) => mix(ramp(), k / 24));
  const scale = document.createElement("div");
  scale.className = "scale";
  el(scale, "i").style.background = "linear-gradient(to right, " + steps.join(", ") + ")";
  const row = el(scale, "div");
  for (const v of marks) el(row, "span", signed(v, gap));
  $("legend").replaceChildren(scale);
  el($("legend"), "span", tally().label + ", " + unit() + (seriesNow() === "week" ? ", mean of 7 days" : seriesNow() === "sum" ? ", so far" : ""));
  if (shown.some((one) => one.x.some((v, i) => !Number.isFinite(v * head(i % many))))) el($("legend"), "span", "").append(Object.assign(document.createElement("i"), { className: "swatch" }), "no data");
}

// The curve of everybody, or of the area that is kept
let draw = null;
function curve() {
  const a = pick.kept, H = $("chart").clientHeight || 128, L = 8, T = 16, B = 20, W = Math.max(240, $("chart").clientWidth || 600), R = 8;
  const rows = shown.map((one) => ({ name: one.name, y: a < 0 ? Array.from(one.all, (v) => v * headAll()) : Array.from({ length: days }, (_, d) => value(one, a, d)), band: a < 0 || !one.band ? null : Array.from({ length: days }, (_, d) => ends(one, a, d)) }));
  const flat = rows.flatMap((r) => [...r.y, ...(r.band ? r.band.flat() : [])]).filter(Number.isFinite);
  const high = Math.max(0, ...flat) || (flat.some((v) => v < 0) ? 0 : 1), low = Math.min(0, ...flat);
  const x = (d) => (days > 1 ? L + ((W - L - R) * d) / (days - 1) : W / 2), y = (v) => T + ((H - T - B) * (high - v)) / (high - low);
  $("chart").replaceChildren();
  const node = svg($("chart"), "svg", { viewBox: "0 0 " + W + " " + H, preserveAspectRatio: "none", role: "img", "aria-label": (a < 0 ? about.everybody : title(a)) + ", day by day: " + tally().label });
  for (const v of new Set([high, 0, low])) {
    svg(node, "line", { x1: L, x2: W - R, y1: y(v), y2: y(v), class: "grid" });
    if (v) svg(node, "text", { x: L, y: v > 0 ? y(v) - 4 : y(v) + 12 }).textContent = signed(v, pick.view === "gap");
  }
  rows.forEach((r, k) => {
    const points = r.y.map((v, d) => [x(d), y(v)]).filter((p) => Number.isFinite(p[1])), hue = "var(--w" + ((pick.view === "gap" ? 1 : k) % 2) + ")";
    if (r.band && r.band.every((b) => b.every(Number.isFinite))) svg(node, "path", { class: "band", style: "fill: " + hue, d: "M" + [...r.band.map((b, d) => [x(d), y(b[1])]), ...r.band.map((b, d) => [x(d), y(b[0])]).reverse()].map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L") + "Z" });
    if (points.length > 1) svg(node, "path", { class: "line", style: "stroke: " + hue, d: "M" + points.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L") });
  });
  for (const [d, anchor] of days > 1 ? [[0, "start"], [days - 1, "end"]] : [[0, "middle"]]) svg(node, "text", { x: x(d), y: H - 5, "text-anchor": anchor }).textContent = dayName(d);
  const line = svg(node, "line", { class: "cursor", y1: T - 4, y2: H - B }), dots = rows.map((_, k) => svg(node, "circle", { r: 4, style: "fill: var(--w" + ((pick.view === "gap" ? 1 : k) % 2) + "); stroke: var(--paper); stroke-width: 1.5" }));
  const go = (e) => { const f = node.getBoundingClientRect(); to(Math.round((((e.clientX - f.left) * W) / f.width - L) / ((W - L - R) / Math.max(1, days - 1)))); };
  node.addEventListener("pointerdown", (e) => { pause(); go(e); });
  node.addEventListener("pointermove", (e) => { if (e.buttons) go(e); });
  draw = { line, dots, rows, x, y };
  const said = $("whose");
  said.replaceChildren();
  el(said, "strong", a < 0 ? about.everybody : title(a));
  rows.forEach((r, k) => { const item = el(said, "span"); el(item, "i").style.borderColor = "var(--w" + ((pick.view === "gap" ? 1 : k) % 2) + ")"; item.append(about.worlds.length > 1 ? r.name + ": " : ""); r.out = el(item, "span"); });
  cursor();
}
function cursor() {
  if (!draw) return;
  const at = draw.x(pick.day);
  draw.line.setAttribute("x1", at); draw.line.setAttribute("x2", at);
  draw.rows.forEach((r, k) => {
    const v = r.y[pick.day], dot = draw.dots[k];
    dot.setAttribute("cx", at); dot.setAttribute("cy", Number.isFinite(v) ? draw.y(v) : -99);
    r.out.textContent = signed(v, pick.view === "gap") + " " + unit();
  });
}

// Time
let clock = 0;
function to(day) { pick.day = Math.min(days - 1, Math.max(0, day)); paint(); }
function pause() { clearTimeout(clock); clock = 0; $("play").setAttribute("aria-pressed", "false"); $("play").setAttribute("aria-label", "Play"); $("sign").setAttribute("d", "M7 4.5v15l12-7.5z"); }
function tick() { if (pick.day >= days - 1) return pause(); to(pick.day + 1); clock = setTimeout(tick, calm.matches ? 600 : 130); }
function play() {
  if (clock) return pause();
  if (pick.day >= days - 1) to(0);
  $("play").setAttribute("aria-pressed", "true"); $("play").setAttribute("aria-label", "Pause"); $("sign").setAttribute("d", "M6 4.5h4v15H6zM14 4.5h4v15h-4z");
  clock = setTimeout(tick, 60);
}
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("select")) return;
  const moves = { ArrowLeft: -1, ArrowRight: 1 }, typed = e.target.closest("button, summary, .controls input, a");
  if (e.key in moves && !e.target.closest(".controls input")) { pause(); to(pick.day + moves[e.key] * (e.shiftKey ? 7 : 1)); }
  else if ((e.key === "Home" || e.key === "End") && !typed) { pause(); to(e.key === "Home" ? 0 : days - 1); }
  else if (e.key === " " && (!typed || typed === $("play"))) play();
  else if (e.key === "Escape") { keep(-1); point(-1); return; }
  else return;
  e.preventDefault();
});
$("day").max = days - 1;
$("day").addEventListener("input", () => { pause(); to(+$("day").value); });
$("play").addEventListener("click", play);
// The space bar has played already when it was pressed.
$("play").addEventListener("keyup", (e) => { if (e.key === " ") e.preventDefault(); });

// Controls
function choices(id, words, key) {
  const row = el($(id), "div", "", { class: "segments" });
  for (const k in words) {
    const label = el(row, "label"), input = el(label, "input", "", { type: "radio", name: key, value: k });
    label.append(words[k]);
    input.checked = pick[key] === k;
    input.addEventListener("change", () => { pick[key] = k; refresh(); });
  }
}
function options(id, words, key) {
  words.forEach((word, k) => el($(id), "option", word, { value: k }));
  $(id).value = pick[key];
  $(id).addEventListener("change", () => { pick[key] = +$(id).value; refresh(); });
}
function refresh() {
  prepare();
  for (const input of document.querySelectorAll("[name=series]")) { input.disabled = input.value === "sum" && tally().stock; input.checked = input.value === seriesNow(); }
  for (const input of document.querySelectorAll("[name=measure]")) { input.disabled = input.value === "rate" && !(tally().people && about.people); input.checked = input.value === measureNow(); }
  build(); legend(); curve(); ring(); paint();
}
options("tally", about.tallies.map((t) => t.label), "tally");
options("left", about.worlds, "left");
options("right", about.worlds, "right");
choices("view", VIEWS, "view");
choices("measure", MEASURES, "measure");
choices("series", SERIES, "series");
if (about.worlds.length < 2) for (const e of document.querySelectorAll("[data-worlds]")) e.hidden = true;
// It opens on the day on which most happens, and several worlds on what became of each by the end.
if (about.worlds.length > 1) { pick.series = "sum"; pick.day = days - 1; }
prepare();
if (about.worlds.length < 2) shown[0].all.forEach((v, d) => { if (v > shown[0].all[pick.day]) pick.day = d; });
refresh();
dark.addEventListener("change", refresh);
let wide = innerWidth;
addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; curve(); } });
document.documentElement.dataset.ready = "yes";
})();
