// --- What has changed in the last ten minutes, in all zones and in the file. ---

const CHANGES_SECONDS = 600;
const CHANGES_SHOWN_MAX = 25;

// What happened to nodes that changed in the same way, or to the zone.
function changeText({ nodes, change, from, to, count }) {
  const who = nodes.length > 0 ? ranges(nodes) : "";
  if (change === "joined") return `${who} joined, ${to}`;
  if (change === "left") return `${who} left, was ${from}`;
  if (change === "further") return `${plural(count, "further node")} changed`;
  return nodes.length > 0 ? `${who} ${from} → ${to}` : `${from} → ${to}`;
}

// Changes of one zone; nodes that changed in the same way at the same time are one.
function foldChanges(changes) {
  const key = (change) => [change.at, change.node ? "n" : "z", change.change, change.from, change.to, change.reason].join("\n");
  return grouped(changes, key).map((same) => ({ ...same[0], nodes: same.map((change) => change.node).filter(Boolean) }));
}

function recentChanges() {
  const oldest = now() - CHANGES_SECONDS;
  const all = [];
  for (const { data } of zones.values()) {
    const recent = data.changes.filter((change) => unix(change.at) >= oldest);
    if (recent.length === 0) continue;
    for (const change of foldChanges(recent)) {
      const reason = change.reason ? `: ${foldErrors(change.reason)}` : "";
      all.push({ at: change.at, zone: data.name, text: changeText(change) + reason, bad: change.to === "down" || SEVERITY[change.to] === "critical" });
    }
  }
  // The same in many zones is one line.
  const folded = grouped(all, (change) => change.at + change.text).map((same) => ({ ...same[0], zones: same.map((change) => change.zone) }));
  for (const { at, outcome, changes, error } of server.state?.configurations || []) {
    const text = outcome === "applied" ? `configuration applied: ${changes || "no zone or key changed"}` : `configuration refused: ${error}`;
    if (unix(at) >= oldest) folded.push({ at, zones: [], text, bad: outcome !== "applied" });
  }
  return folded.sort((a, b) => (a.at < b.at ? 1 : a.at > b.at ? -1 : 0));
}

function drawChanges() {
  const changes = recentChanges();
  const items = changes.slice(0, CHANGES_SHOWN_MAX).map(({ at, zones: names, text, bad }) =>
    el("li", { class: bad ? "bad" : null },
      el("time", { datetime: at }, clock(at)), " ",
      names.length > 0 ? zoneLink(names[0]) : null,
      names.length > 1 ? ` and ${plural(names.length - 1, "more zone")}` : null,
      " ", text));
  const list = byId("changes");
  const same = list.children.length === items.length && items.every((item, index) => item.textContent === list.children[index].textContent);
  if (!same && !list.contains(document.activeElement)) list.replaceChildren(...items);
  const more = changes.length - items.length;
  setText(byId("changes-note"), more > 0 ? `and ${more} earlier` : changes.length === 0 ? "none" : "");
}
