// --- Elements, and texts of times and addresses. What comes from outside is only ever the content of a text node. ---

const SVG = "http://www.w3.org/2000/svg";

// The server's clock, less this machine's, in seconds.
let clockOffset = 0;

const byId = (id) => document.getElementById(id);
const now = () => Date.now() / 1000 + clockOffset;
const unix = (text) => Date.parse(text) / 1000;

function append(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  return element;
}
const el = (tag, attributes, ...children) => append(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => append(document.createElementNS(SVG, tag), attributes, children);

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A time span in at most two units.
function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// An age that goes on counting.
function age(since) {
  const at = typeof since === "number" ? since : unix(since);
  const moment = new Date(at * 1000);
  const datetime = Number.isNaN(moment.getTime()) ? null : moment.toISOString();
  return el("time", { datetime, "data-since": at, title: datetime }, span(now() - at));
}
function countAges() {
  for (const element of document.querySelectorAll("#live [data-since]")) {
    setText(element, span(now() - Number(element.dataset.since)));
  }
}

const clock = (text) => new Date(text).toLocaleTimeString([], { hour12: false });
const number = (value) => (value >= 10 || value === 0 ? Math.round(value).toLocaleString("en") : value.toPrecision(2));
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

const IPV4 = /^(\d+\.\d+\.\d+)\.(\d+)$/;
const ADDRESSES_MAX = 8;

// "10.0.0.1–3, 10.0.0.7": consecutive IPv4 addresses are one range.
function ranges(addresses) {
  const sorted = addresses.map((address) => ({ address, parts: IPV4.exec(address) }));
  sorted.sort((a, b) =>
    a.parts && b.parts && a.parts[1] === b.parts[1]
      ? a.parts[2] - b.parts[2]
      : a.address < b.address ? -1 : 1);
  const found = [];
  for (const { address, parts } of sorted) {
    const last = found[found.length - 1];
    if (parts && last && last.network === parts[1] && last.end + 1 === Number(parts[2])) last.end += 1;
    else found.push({ address, network: parts && parts[1], start: parts && Number(parts[2]), end: parts && Number(parts[2]) });
  }
  const texts = found.map((range) => (range.end > range.start ? `${range.address}–${range.end}` : range.address));
  const shown = texts.slice(0, ADDRESSES_MAX).join(", ");
  return texts.length > ADDRESSES_MAX ? `${shown} and ${texts.length - ADDRESSES_MAX} more` : shown;
}

// Items with the same key, together, in the order of their first.
function grouped(items, key) {
  const groups = new Map();
  for (const item of items) {
    const name = key(item);
    if (groups.has(name)) groups.get(name).push(item);
    else groups.set(name, [item]);
  }
  return [...groups.values()];
}

const ADDRESS = /^((?:\d{1,3}\.){3}\d{1,3}|[0-9a-f]*:[0-9a-f:.]+) (.*)$/;

// "10.0.0.1 timed out; 10.0.0.2 timed out" becomes "10.0.0.1–2 timed out".
function foldErrors(text) {
  const split = /^(.*?: )(?=(?:\d{1,3}\.){3}\d{1,3} |[0-9a-f]*:[0-9a-f:]+ )/.exec(text);
  const prefix = split ? split[1] : "";
  const parts = text.slice(prefix.length).split("; ").map((part) => ADDRESS.exec(part) || [null, null, part]);
  const folded = grouped(parts, (part) => (part[1] ? "a" : "t") + part[2]).map((same) => {
    const addresses = [...new Set(same.map((part) => part[1]).filter(Boolean))];
    return addresses.length > 0 ? `${ranges(addresses)} ${same[0][2]}` : same[0][2];
  });
  return prefix + folded.join("; ");
}
