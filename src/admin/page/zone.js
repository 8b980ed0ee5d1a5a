// --- The page of one zone: #zone/NAME. ---

const ZONE_REFRESH = 3000;
const PLOT_SECONDS_MIN = 900;
const PLOT_SECONDS_MAX = 86400;
const PLOT_NODES_MAX = 40;

const zonePage = { name: null, timer: null, hasNoExplanation: false };

const askedZone = () => {
  const match = /^#zone\/(.+)$/.exec(location.hash);
  try { return match ? decodeURIComponent(match[1]) : null; } catch { return null; }
};

async function read(path, name) {
  const reply = await fetch(`${path}?zone=${encodeURIComponent(name)}`);
  if (!reply.ok) throw new Error((await reply.text()).slice(0, 300));
  return reply.json();
}

// What /api/explain knows of the zone besides; null where the server has no such path.
async function readExplanation(name) {
  if (zonePage.hasNoExplanation) return null;
  const reply = await fetch(`/api/explain?name=${encodeURIComponent(name)}`);
  if (!reply.ok) {
    zonePage.hasNoExplanation = true;
    return null;
  }
  const explained = await reply.json();
  return explained.zone ? explained : null;
}

// Who lists what: senders of the same list are one line.
function zoneLists({ place, zone }) {
  const lists = (zone.lists || []).map(({ senders, further_senders, nodes, further_nodes }) => {
    const latest = Math.min(...senders.map((sender) => sender.seconds_ago));
    const more = (count) => (count > 0 ? ` and ${count} more` : "");
    return el("li", null, `${ranges(senders.map((sender) => sender.node))}${more(further_senders)}: `,
      nodes.length > 0 ? `${ranges(nodes)}${more(further_nodes)}` : "nothing", ", ", age(now() - latest), " ago");
  });
  if (zone.further_lists > 0) lists.push(el("li", null, `and ${plural(zone.further_lists, "other list")}`));
  const others = (zone.others || []).map(({ address, is_seed, belonging, reason }) =>
    el("li", null, `${address}${is_seed ? " (a seed)" : ""} is on no list: ${reason || belonging || "nothing is known of it"}`));
  return [
    place?.line ? el("p", { class: "muted" }, `defined in ${place.file}:${place.line}`) : null,
    lists.length > 0 ? el("ul", { class: "lists" }, lists) : el("p", { class: "muted" }, "no node has sent a list yet"),
    (zone.group || []).length > 0 ? el("p", null, `Nodes that list each other: ${ranges(zone.group)}`) : null,
    others.length > 0 ? el("ul", null, others) : null,
  ];
}

// For each node its states over time, the oldest first, as the changes and the present tell.
function timelines(zone, changes) {
  const end = now();
  const first = changes.length > 0 ? unix(changes[0].at) : end;
  const start = end - Math.min(Math.max(end - first, PLOT_SECONDS_MIN), PLOT_SECONDS_MAX);
  const lines = new Map();
  for (const { at, node, from, to } of changes) {
    if (!node) continue;
    if (!lines.has(node)) lines.set(node, [{ at: start, state: from || null }]);
    lines.get(node).push({ at: Math.max(unix(at), start), state: to || null });
  }
  for (const node of zone.nodes) {
    if (!lines.has(node.address)) {
      const known = Math.max(unix(node.since), start);
      lines.set(node.address, [{ at: start, state: null }, { at: known, state: node.state }]);
    }
  }
  return { start, end, lines: [...lines].sort(([a], [b]) => (a < b ? -1 : 1)) };
}

function statePlot(zone, changes) {
  const { start, end, lines } = timelines(zone, changes);
  const width = 1000;
  const x = (at) => ((at - start) / (end - start)) * width;
  const bars = lines.slice(0, PLOT_NODES_MAX).map(([address, states]) => {
    const parts = states.map(({ at, state }, index) => {
      const until = index + 1 < states.length ? states[index + 1].at : end;
      const length = x(until) - x(at);
      return state && length > 0 ? svg("rect", { class: `bar ${state}`, x: x(at).toFixed(1), y: 0, width: Math.max(length, 2).toFixed(1), height: 10 }) : null;
    });
    const last = states[states.length - 1].state || "not listed";
    const label = `${address}: ${states.length - 1} changes, now ${last}`;
    return el("tr", null,
      el("th", { scope: "row" }, address),
      el("td", { class: "spark" }, svg("svg", { class: "states", viewBox: `0 0 ${width} 10`, preserveAspectRatio: "none", role: "img", "aria-label": label }, parts)),
      el("td", null, last));
  });
  const more = lines.length - bars.length;
  return [
    el("table", { class: "timeline" }, el("thead", null, el("tr", null,
      el("th", { scope: "col" }, "Node"), el("th", { scope: "col" }, `The last ${span(end - start)}`), el("th", { scope: "col" }, "Now"))),
      el("tbody", null, bars)),
    more > 0 ? el("p", { class: "muted" }, `and ${plural(more, "further node")}`) : null,
  ];
}

function nodeTable(zone) {
  const heads = ["Node", "State", "Answered", "Since", "Reason", "Last probe", "Requests a second"];
  const body = zone.nodes.slice(0, 500).map((node) => {
    const probe = node.last_probe;
    return el("tr", null,
      el("th", { scope: "row" }, node.address),
      el("td", { "data-label": heads[1] }, el("span", { class: `pill ${node.state}` }, node.state)),
      el("td", { "data-label": heads[2] }, node.answered ? (node.answered_as ? `as ${node.answered_as}` : "yes") : "no"),
      el("td", { "data-label": heads[3] }, age(node.since)),
      el("td", { "data-label": heads[4] }, node.reason || ""),
      el("td", { "data-label": heads[5] }, probe ? [`${probe.result}, ${probe.milliseconds} ms, `, age(probe.at), " ago"] : "none"),
      el("td", { "data-label": heads[6], class: "number" }, String(node.requests_per_second)));
  });
  return el("table", { class: "nodes" },
    el("thead", null, el("tr", null, heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", null, body));
}

const fact = (name, ...value) => el("div", null, el("dt", null, name), el("dd", null, value));

function zoneFacts(zone) {
  const success = zone.last_success_seconds_ago === null
    ? ["no node has sent a usable list yet"]
    : [`sent by ${zone.source || "an unknown node"} `, age(now() - zone.last_success_seconds_ago), " ago"];
  const scope = zone.scope && `${[zone.scope.datacenter].flat().join(", ")}${zone.scope.rack ? `, rack ${zone.scope.rack}` : ""}`;
  return el("dl", null,
    fact("Answers now", zone.answers.length > 0 ? ranges(zone.answers) : "none: SERVFAIL"),
    fact("TTL", `${zone.ttl_seconds} s`),
    fact("List in force", ...success),
    zone.last_error ? fact("Last error", foldErrors(zone.last_error)) : null,
    fact("Cluster id", zone.cluster_id || "unknown"),
    scope ? fact("Scope in force", scope) : null,
    fact("Serial", String(zone.serial)));
}

function zoneHistory(changes) {
  const items = foldChanges([...changes].reverse()).map((change) =>
    el("li", { class: change.to === "down" || SEVERITY[change.to] === "critical" ? "bad" : null },
      el("time", { datetime: change.at }, `${change.at.slice(0, 10)} ${clock(change.at)}`), " ",
      change.nodes.length === 0 && change.change === "state" ? (change.view ? `the view of ${change.view} ` : "the zone ") : "",
      changeText(change), change.reason ? `: ${foldErrors(change.reason)}` : ""));
  return items.length > 0 ? el("ol", { class: "history" }, items) : el("p", { class: "muted" }, "nothing has changed since the start");
}

function zoneViews(views) {
  const items = views.map((view) => el("li", null,
    `${view.clients.join(", ")}: `, el("span", { class: `pill ${view.state}` }, view.state), " ",
    view.addresses.length > 0 ? ranges(view.addresses) : "gets the zone's addresses",
    view.reason ? `: ${foldErrors(view.reason)}` : ""));
  return el("ul", null, items);
}

const card = (id, title, ...content) =>
  el("section", { class: "card", "aria-labelledby": id }, el("h3", { id }, title), content);

function drawZonePage(zone, changes, explained) {
  const content = [
    el("div", { class: `zone-head ${SEVERITY[zone.state] || "warning"}` },
      el("span", { class: "state" }, zone.state), " for ", age(zone.since),
      zone.reason ? el("p", null, foldErrors(zone.reason)) : null),
    card("zone-facts", "Answers", zoneFacts(zone)),
    zone.views ? card("zone-views", "Views by client", zoneViews(zone.views)) : null,
    card("zone-nodes", "Nodes", el("div", { class: "wide", tabindex: "0", role: "region", "aria-labelledby": "zone-nodes" }, nodeTable(zone))),
    explained ? card("zone-lists", "Lists by sender", zoneLists(explained)) : null,
    card("zone-plot", "States of the nodes over time", statePlot(zone, changes)),
    card("zone-history", "History", zoneHistory(changes)),
  ];
  const body = byId("zone-body");
  // What is focused or selected stays until it is left.
  const selection = document.getSelection();
  const isSelected = !selection.isCollapsed && body.contains(selection.anchorNode);
  if (!body.contains(document.activeElement) && !isSelected) body.replaceChildren(...content.filter(Boolean));
}

async function refreshZonePage() {
  clearTimeout(zonePage.timer);
  const name = zonePage.name;
  if (name === null) return;
  try {
    const replies = [read("/api/zones", name), read("/api/history", name), readExplanation(name)];
    const [{ zones: [zone] }, { changes }, explained] = await Promise.all(replies);
    if (zonePage.name !== name) return;
    drawZonePage(zone, changes, explained);
    setText(byId("zone-error"), "");
  } catch (error) {
    if (zonePage.name === name) {
      const isDrawn = byId("zone-body").children.length > 0;
      setText(byId("zone-error"), `${isDrawn ? "This is the last known state: " : ""}${error.message}`);
    }
  }
  if (zonePage.name === name) zonePage.timer = setTimeout(refreshZonePage, ZONE_REFRESH);
}

// Shows the zone that the address names, or the overview.
function route() {
  const name = askedZone();
  if (name === zonePage.name) return;
  const former = zonePage.name;
  zonePage.name = name;
  byId("zone").hidden = name === null;
  byId("overview").hidden = name !== null;
  if (name === null) {
    clearTimeout(zonePage.timer);
    byId("zone").replaceChildren();
    drawAll();
    const link = rows.get(former)?.element.querySelector("a");
    if (link?.isConnected) link.focus();
    else if (former !== null) byId("zones").focus();
    return;
  }
  const heading = el("h2", { tabindex: "-1" }, shown(name));
  byId("zone").replaceChildren(
    el("p", null, el("a", { href: "#" }, "All zones")), heading,
    el("p", { id: "zone-error", role: "status" }), el("div", { id: "zone-body" }));
  drawTitle();
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
  refreshZonePage();
}
