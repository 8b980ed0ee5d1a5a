// --- The list of zones: grouped by state, filtered, and drawn only as far as it is looked at. ---

const STATES = ["unanswered", "stale", "waiting", "contested", "degraded", "live"];
const SEVERITY = { unanswered: "critical", stale: "critical", waiting: "warning", contested: "warning", degraded: "warning", live: "ok" };
const ROWS_FIRST = 40;
const ROWS_MORE = 200;
const PILLS_MAX = 12;
const UNUSABLE_MAX = 6;

// By name. Each is { data, text, troubled }, and is replaced whole when the server sends the zone again.
const zones = new Map();
// Names in order; null after a zone has come or gone.
let sortedNames = null;
// For each state: its elements, and how many rows may be drawn.
const groups = new Map();
// The row of each zone that has one, with the zone that it shows.
const rows = new Map();

function storeZone(data) {
  if (!zones.has(data.name)) sortedNames = null;
  const nodes = data.nodes.map((node) => `${node.address} ${node.state} ${node.reason || ""}`);
  const text = [data.name, data.state, data.reason, data.last_error, ...data.seeds, ...nodes].join(" ").toLowerCase();
  const troubled = data.last_error !== null || data.nodes.some((node) => node.state !== "up" && node.state !== "excluded");
  zones.set(data.name, { data, text, troubled });
}
function removeZone(name) {
  zones.delete(name);
  rows.delete(name);
  sortedNames = null;
}
function names() {
  sortedNames ||= [...zones.keys()].sort();
  return sortedNames;
}

const shown = (name) => name.replace(/(.)\.$/, "$1");
const zoneLink = (name) => el("a", { href: `#zone/${encodeURIComponent(name)}` }, shown(name));

function pill(node) {
  const remark = node.state === "up" ? (node.answered ? "" : " not answered") : ` ${node.state}${node.answered ? ", answered" : ""} `;
  const since = node.state === "up" ? null : age(node.since);
  return el("span", { class: `pill ${node.state}${node.answered ? "" : " muted"}` }, node.address + remark, since);
}

function pills(data) {
  if (data.nodes.length === 0) {
    const seeds = data.seeds.slice(0, PILLS_MAX).map((seed) => el("span", { class: "pill muted" }, `${seed} seed`));
    return seeds.length > 0 ? seeds : [el("span", { class: "muted" }, "no address: clients get SERVFAIL")];
  }
  const ordered = [...data.nodes].sort((a, b) => (a.state === "up") - (b.state === "up"));
  const first = ordered.slice(0, PILLS_MAX).map(pill);
  const more = data.nodes.length + data.further_nodes - first.length;
  return more > 0 ? [...first, el("span", { class: "muted" }, `and ${more} more`)] : first;
}

// Why nodes are not up: equal reasons in one line.
function nodeReasons(data) {
  const reasons = grouped(data.nodes.filter((node) => node.reason), (node) => node.state + node.reason);
  return reasons.map((same) => el("li", null, `${ranges(same.map((node) => node.address))} ${same[0].state}: ${same[0].reason}`));
}

function zoneReason(data) {
  const error = data.last_error && !(data.reason || "").includes(data.last_error) ? data.last_error : null;
  const texts = [
    data.reason && foldErrors(data.reason),
    error && `last poll: ${foldErrors(error)}`,
    data.seeds_disagree && "a seed is of another cluster or datacenter",
  ];
  return texts.filter(Boolean).map((text) => el("p", null, text));
}

function row({ data }) {
  const reasons = nodeReasons(data);
  return el("li", { class: `zone ${SEVERITY[data.state] || "warning"}` },
    el("div", { class: "name" }, zoneLink(data.name), el("span", { class: "muted" }, "for ", age(data.since))),
    el("div", { class: "pills" }, pills(data)),
    el("div", { class: "why" }, zoneReason(data), reasons.length > 0 ? el("ul", null, reasons) : null));
}

// The row of a zone; the one that is there, if it shows the same.
function rowOf(name) {
  const zone = zones.get(name);
  const former = rows.get(name);
  if (former && former.zone === zone) return former.element;
  const element = row(zone);
  if (former && former.element.contains(document.activeElement)) {
    former.element.replaceWith(element);
    element.querySelector("a").focus({ preventScroll: true });
  }
  rows.set(name, { zone, element });
  return element;
}

// Makes these the children, and leaves those alone that are in their place already: a selection in them stays.
function setChildren(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) {
    if (!wanted.has(child)) child.remove();
  }
  children.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] || null);
  });
}

function group(state) {
  if (groups.has(state)) return groups.get(state);
  const heading = el("h3", { id: `state-${state}` });
  const list = el("ul", { class: "list", "aria-labelledby": heading.id });
  const more = el("button", { type: "button", hidden: "" });
  const made = { heading, list, more, limit: ROWS_FIRST };
  more.addEventListener("click", () => {
    const before = list.children.length;
    made.limit += ROWS_MORE;
    drawZones();
    list.children[before]?.querySelector("a").focus({ preventScroll: true });
  });
  made.element = el("section", { class: SEVERITY[state] || "warning", "aria-labelledby": heading.id }, heading, list, more);
  groups.set(state, made);
  return made;
}

function matching() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = new Map(STATES.map((state) => [state, [[], []]]));
  let count = 0;
  for (const name of names()) {
    const zone = zones.get(name);
    if (!words.every((word) => zone.text.includes(word))) continue;
    count += 1;
    if (!found.has(zone.data.state)) found.set(zone.data.state, [[], []]);
    found.get(zone.data.state)[zone.troubled ? 0 : 1].push(name);
  }
  return { found, count, filtered: words.length > 0 };
}

function drawZones() {
  const { found, count, filtered } = matching();
  const sections = [];
  for (const [state, [troubled, others]] of found) {
    const all = [...troubled, ...others];
    if (all.length === 0) continue;
    const { heading, list, more, element, limit } = group(state);
    setText(heading, `${state} · ${all.length.toLocaleString("en")}`);
    setChildren(list, all.slice(0, limit).map(rowOf));
    more.hidden = all.length <= limit;
    setText(more, `Show ${Math.min(ROWS_MORE, all.length - limit)} more of ${plural(all.length, `${state} zone`)}`);
    sections.push(element);
  }
  setChildren(byId("groups"), sections);
  setText(byId("count"), filtered ? `${count.toLocaleString("en")} of ${plural(zones.size, "zone")}` : plural(zones.size, "zone"));
}

function drawUnusable() {
  const unusable = names().filter((name) => zones.get(name).data.state === "unanswered");
  byId("unusable").hidden = unusable.length === 0;
  const items = unusable.slice(0, UNUSABLE_MAX).map((name) => {
    const { data } = zones.get(name);
    return el("li", null, zoneLink(name), " for ", age(data.since), data.reason ? `: ${foldErrors(data.reason)}` : "");
  });
  if (unusable.length > UNUSABLE_MAX) items.push(el("li", null, `and ${unusable.length - UNUSABLE_MAX} more, below`));
  const list = byId("unusable-list");
  if (!list.contains(document.activeElement)) list.replaceChildren(...items);
}
