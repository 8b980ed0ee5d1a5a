// --- Queries of the last 15 minutes. ---

const queries = { rcodes: [], step: 5, max: 180, samples: [] };

function addSamples(samples) {
  queries.samples = [...queries.samples, ...samples].slice(-queries.max);
}

const total = (sample) => sample[1].reduce((sum, rate) => sum + rate, 0);

// What the plots cover: all samples, and not less than half a minute.
function covered() {
  const first = queries.samples.length > 0 ? queries.samples[0][0] : now();
  return Math.min(Math.max(now() - first, 30), queries.max * queries.step);
}

function line(values, className) {
  const width = 200;
  const highest = Math.max(...values.map(([, rate]) => rate), 1e-9);
  const seconds = covered();
  const start = now() - seconds;
  const points = values
    .filter(([at]) => at >= start)
    .map(([at, rate]) => `${(((at - start) / seconds) * width).toFixed(1)},${(30 - (rate / highest) * 28).toFixed(1)}`);
  const first = points.length > 0 ? points[0].split(",")[0] : width;
  const last = points.length > 0 ? points[points.length - 1].split(",")[0] : width;
  return svg("svg", { class: `plot ${className}`, viewBox: `0 0 ${width} 31`, preserveAspectRatio: "none", "aria-hidden": "true" },
    points.length > 0 ? svg("polygon", { points: `${first},30 ${points.join(" ")} ${last},30` }) : null,
    svg("polyline", { points: points.join(" ") }));
}

// What was sent of an rcode, and the elements that show it.
function rcodeRow(rcode, index) {
  const values = queries.samples.map(([at, rates]) => [at, rates[index]]);
  const highest = Math.max(0, ...values.map(([, rate]) => rate));
  if (highest === 0 && rcode !== "NOERROR" && rcode !== "SERVFAIL") return null;
  const latest = values.length > 0 ? values[values.length - 1][1] : 0;
  const kind = rcode === "NOERROR" ? "good" : rcode === "SERVFAIL" ? "bad" : "other";
  return el("tr", null,
    el("th", { scope: "row" }, rcode),
    el("td", { class: "spark" }, line(values, kind)),
    el("td", { class: "number" }, number(latest)),
    el("td", { class: "number" }, number(highest)));
}

function drawPlots() {
  const totals = queries.samples.map((sample) => [sample[0], total(sample)]);
  const highest = Math.max(0, ...totals.map(([, rate]) => rate));
  const latest = totals.length > 0 ? totals[totals.length - 1][1] : null;
  setText(byId("rate-now"), latest === null ? "–" : number(latest));
  setText(byId("rate-note"), latest === null ? "the first sample takes 10 s" : `highest ${number(highest)} in the last ${span(covered())}`);
  setText(byId("rcodes-span"), `Last ${span(covered())}`);
  byId("rate-plot").replaceChildren(line(totals, "good large"));
  byId("rcodes").tBodies[0].replaceChildren(...queries.rcodes.map(rcodeRow).filter(Boolean));
}
