// JSON list of LogQL on stdin -> JSON list of what each has wrong, by Grafana's own grammar: the text from the first error on,
// or null. The parser goes on after an error, and leaves a node of it (⚠) in the tree.
const { readFileSync } = require('node:fs');
const { parser } = require('@grafana/lezer-logql');

function fault(text) {
  let at = null;
  parser.parse(text).iterate({ enter: (node) => { if (node.type.isError) at ??= node.from; } });
  return at === null ? null : text.slice(at);
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(fault)));
