// --- The connection to the server, and what belongs to no zone. ---

// Samples come every 5 s; without any event for so long the connection is taken for lost.
const SILENCE_MAX = 20000;
const RETRY = 1000;
// A connection that is made again within so many seconds was not lost.
const LOST_AFTER = 2;
const DRAW_PAUSE = 60;

const server = { state: null, version: null, source: null, lastEventAt: 0, lostAt: null, why: "", isComplete: false, isReceiving: false, received: new Set() };
let drawing = null;
let drawPause = DRAW_PAUSE;

const isLost = () => server.lostAt !== null && Date.now() / 1000 - server.lostAt >= LOST_AFTER;

function drawTitle() {
  const lost = isLost() ? "no connection · " : "";
  const zone = zonePage.name === null ? "" : `${shown(zonePage.name)} · `;
  const title = `${lost}${zone}${server.state ? `${server.state.headline} · ` : ""}alternator-dns`;
  if (document.title !== title) document.title = title;
}

function drawIcon(severity) {
  const color = { ok: "3a9d6b", warning: "d99a2b", critical: "d0483c", lost: "8a8f96" }[severity];
  const image = `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='6' fill='%23${color}'/%3E%3C/svg%3E`;
  const link = document.querySelector("link[rel=icon]");
  if (link.getAttribute("href") !== image) link.setAttribute("href", image);
}

function drawLost() {
  const banner = byId("lost");
  const lost = isLost();
  document.documentElement.classList.toggle("lost", lost);
  const since = lost ? `No connection to the server since ${clock(new Date(server.lostAt * 1000).toISOString())}.` : "";
  const text = lost ? ` ${server.why}What you see is the last known state. The page tries to connect again.` : "";
  if (banner.textContent !== since + text) banner.replaceChildren(...(lost ? [el("strong", null, since), text] : []));
  drawTitle();
  drawIcon(lost ? "lost" : server.state?.severity || "lost");
}

function drawConfig({ config, server: process }) {
  const facts = [
    fact("File", el("code", null, config.path)),
    fact("Hash", el("code", null, config.hash)),
    fact(config.error === null ? "In force for" : "An older one, in force for", age(config.kept ?? config.loaded)),
    fact("Running for", age(process.started), ` as process ${process.pid}`),
    fact("Ready", process.not_ready || "yes"),
  ];
  const list = byId("config");
  if (list.textContent !== el("dl", null, facts).textContent || list.children.length === 0) list.replaceChildren(...facts);
}

function drawState() {
  const state = server.state;
  if (!state) return;
  byId("verdict").className = state.severity;
  setText(byId("version"), state.server.version);
  setText(byId("headline"), state.headline);
  setText(byId("meaning"), state.meaning);
  const { config, absent } = state;
  byId("refused").hidden = config.error === null;
  if (config.error !== null) {
    setText(byId("refused-text"), config.error);
    byId("refused-since").replaceChildren(...(config.kept === null
      ? ["Nothing has changed: what was loaded ", age(config.loaded), " ago stays in force."]
      : ["The server started with the last good configuration, which was put in force ", age(config.kept), " ago."]));
  }
  byId("absent").hidden = absent.length === 0;
  setText(byId("absent-heading"), `No interface of this host has ${absent.join(", ")}`);
  drawConfig(state);
  setText(byId("live-note"), server.version === state.server.version ? "live" : "another version runs now: reload the page");
}

function drawAll() {
  if (!server.isComplete) return;
  drawState();
  drawLost();
  if (zonePage.name !== null) return;
  drawUnusable();
  drawPlots();
  drawChanges();
  drawZones();
}

// Many events at once are one drawing. Drawing takes at most a fifth of the time, also when thousands of zones change.
function drawSoon() {
  drawing ||= setTimeout(() => {
    drawing = null;
    const start = performance.now();
    drawAll();
    drawPause = Math.max(DRAW_PAUSE, 4 * (performance.now() - start));
  }, drawPause);
}

function begin({ version, now: at, rcodes, sample_seconds, samples_max }) {
  server.version ||= version;
  server.received.clear();
  server.isReceiving = true;
  clockOffset = at - Date.now() / 1000;
  Object.assign(queries, { rcodes, step: sample_seconds, max: samples_max, samples: [] });
}

function complete() {
  // What an earlier stream has sent, and this one has not, is gone.
  for (const name of [...zones.keys()]) {
    if (!server.received.has(name)) removeZone(name);
  }
  server.received.clear();
  server.isReceiving = false;
  if (!server.isComplete) {
    server.isComplete = true;
    byId("static").remove();
    byId("live").hidden = false;
    route();
  }
}

const handlers = {
  begin,
  complete,
  state: (state) => { server.state = state; },
  samples: ({ now: at, samples }) => {
    clockOffset = at - Date.now() / 1000;
    addSamples(samples);
  },
  removed: (names) => names.forEach(removeZone),
  zones: (list) => {
    for (const zone of list) {
      storeZone(zone);
      if (server.isReceiving) server.received.add(zone.name);
      if (zone.name === zonePage.name) refreshZonePage();
    }
  },
};

async function lose(why) {
  server.source?.close();
  server.source = null;
  if (server.lostAt === null) server.lostAt = Date.now() / 1000;
  server.why = why;
  setTimeout(connect, RETRY);
  // EventSource does not say why it has failed.
  const isUp = await fetch("/healthz").then((reply) => reply.ok, () => false);
  if (isUp && server.lostAt !== null) server.why = "The server runs, but serves no further status page: close one. ";
}

function connect() {
  const source = new EventSource("/events");
  server.source = source;
  server.lastEventAt = Date.now();
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      if (server.source !== source) return;
      server.lastEventAt = Date.now();
      handle(JSON.parse(event.data));
      if (name === "complete") server.lostAt = null;
      drawSoon();
    });
  }
  source.addEventListener("error", () => {
    if (server.source === source) lose("");
  });
}

byId("filter").addEventListener("input", () => {
  for (const made of groups.values()) made.limit = ROWS_FIRST;
  drawZones();
});
addEventListener("hashchange", route);
setInterval(() => {
  if (server.source && Date.now() - server.lastEventAt > SILENCE_MAX) lose("The server has been silent. ");
  drawLost();
  countAges();
}, 1000);
// Old changes go, and plots move, also while no event comes.
setInterval(drawSoon, 10000);
connect();
