// Answers of the data sources -> DataFrames, named and shaped as Grafana's own data sources do it.
import { FieldType } from '@grafana/data';

// Not a number is a gap.
const number = (text) => {
  if (text === null || text === 'NaN') return null;
  return text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : parseFloat(text);
};

// A series that was not there for a while: a null begins each hole, and the time after its last point.
function holed(values, end) {
  const step = Math.min(...values.slice(1).map(([s], index) => s - values[index][0]));
  const late = (s, next) => next - s > 1.5 * step;
  return values.flatMap(([s, v], index) => (late(s, values[index + 1]?.[0] ?? end) ? [[s, v], [s + step, null]] : [[s, v]]));
}

const legend = (format, labels, text) => {
  if (format && format !== '__auto') {
    return format.replace(/{{\s*([^}\s]+)\s*}}/g, (_, label) => labels[label] ?? '');
  }
  const { __name__: name = '', ...rest } = labels;
  const pairs = Object.entries(rest).map(([label, value]) => `${label}="${value}"`);
  return name || pairs.length ? `${name}${pairs.length ? `{${pairs.join(', ')}}` : ''}` : text;
};

const points = (series) => series.values ?? [series.value]; // [[seconds, "value"], ...]

function seriesFrame(series, target, end) {
  const points = series.values ? holed(series.values, end) : [series.value];
  const { __name__: _, ...labels } = series.metric;
  const displayNameFromDS = legend(target.legendFormat, series.metric, target.expr);
  return {
    refId: target.refId,
    name: displayNameFromDS,
    length: points.length,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: points.map(([s]) => s * 1000) },
      { name: 'Value', type: FieldType.number, config: { displayNameFromDS }, labels, values: points.map(([, v]) => number(v)) },
    ],
  };
}

// What `format: heatmap` asks for: of a Prometheus histogram, where each bucket counts all below it, each bucket alone.
function bucketFrames(series) {
  const bound = (frame) => parseFloat(frame.fields[1].labels.le.replace('+Inf', 'Infinity'));
  const sorted = [...series].sort((a, b) => bound(a) - bound(b));
  const alone = (values, below) => values.map((count, at) => (count === null ? null : Math.max(0, count - (below?.[at] ?? 0))));
  return sorted.map((frame, index) => {
    const [time, value] = frame.fields;
    return { ...frame, fields: [time, { ...value, values: alone(value.values, sorted[index - 1]?.fields[1].values) }] };
  });
}

// One table of all series: Time, each label, Value ("Value #A" where the panel asks several queries).
function tableFrame(result, target, alone) {
  const names = [...new Set(result.flatMap((series) => Object.keys(series.metric)))].sort();
  const rows = result.flatMap((series) => points(series).map(([s, v]) => [series.metric, s * 1000, number(v)]));
  return {
    refId: target.refId,
    length: rows.length,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: rows.map((row) => row[1]) },
      ...names.map((name) => ({ name, type: FieldType.string, config: {}, values: rows.map((row) => row[0][name] ?? '') })),
      { name: alone ? 'Value' : `Value #${target.refId}`, type: FieldType.number, config: {}, values: rows.map((row) => row[2]) },
    ],
  };
}

function rowsFrame({ columns, rows }, target) {
  const typeOf = (index, name) => {
    const value = rows.map((row) => row[index]).find((cell) => cell !== null);
    if (name === 'time') return FieldType.time;
    return typeof value === 'number' ? FieldType.number : typeof value === 'boolean' ? FieldType.boolean : FieldType.string;
  };
  const fields = columns.map((name, index) => ({
    name, type: typeOf(index, name), config: {}, values: rows.map((row) => row[index]),
  }));
  return { refId: target.refId, length: rows.length, fields };
}

// Loki: streams of [[nanoseconds, line], ...], newest first.
function logsFrame(result, target) {
  const lines = result
    .flatMap(({ stream, values }) => values.map(([ns, line]) => [Number(BigInt(ns) / 1000000n), line, stream]))
    .sort((a, b) => b[0] - a[0]);
  const column = (name, type, index) => ({ name, type, config: {}, values: lines.map((line) => line[index]) });
  return {
    refId: target.refId,
    length: lines.length,
    fields: [column('Time', FieldType.time, 0), column('Line', FieldType.string, 1), column('labels', FieldType.other, 2)],
  };
}

export function frames(panel, answers) {
  const targets = panel.targets ?? [];
  return targets.flatMap((target) => {
    const answer = answers[target.refId];
    if (!answer) return [];
    if (answer.resultType === 'rows') return [rowsFrame(answer.result, target)];
    if (answer.resultType === 'streams') return [logsFrame(answer.result, target)];
    if (target.format === 'table') return [tableFrame(answer.result, target, targets.length === 1)];
    const end = Math.max(...answer.result.map((series) => points(series).at(-1)[0]));
    const series = answer.result.map((one) => seriesFrame(one, target, end));
    return target.format === 'heatmap' ? bucketFrames(series) : series;
  });
}
