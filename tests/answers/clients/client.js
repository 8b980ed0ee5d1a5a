// A client in Node: node client.js PORT
//
// For each line "ID NAME" it connects to the name with net.connect and its defaults; all addresses together have four
// seconds. It prints "ID ADDRESS MILLISECONDS"; the address is "-" if none accepted.
'use strict';
const net = require('node:net');
const readline = require('node:readline');

const port = Number(process.argv[2]);
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [id, host] = line.split(' ');
  const start = performance.now();
  const connection = net.connect({ host, port });
  const timer = setTimeout(() => connection.destroy(new Error('timeout')), 4000);
  let ended = false;
  const end = (address) => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    console.log(`${id} ${address} ${(performance.now() - start).toFixed(1)}`);
    connection.destroy();
  };
  connection.once('connect', () => end(connection.remoteAddress));
  connection.on('error', () => end('-'));
});
