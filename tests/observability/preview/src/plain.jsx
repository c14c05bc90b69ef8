// Panels that @grafana/ui has no component for: drawn plainly, with Grafana's values, units and colours.
import React from 'react';
import { dateTimeFormat, getFieldDisplayName, getFieldDisplayValues, getValueFormat } from '@grafana/data';
import { VizLayout, VizLegend } from '@grafana/ui';
import { fieldConfig, interpolator } from './fields.js';

const HOLE = 0.6; // of a doughnut's radius, Grafana's

function slice(from, to, radius, hole) {
  const at = (turn, r) => `${radius + r * Math.sin(turn * 2 * Math.PI)},${radius - r * Math.cos(turn * 2 * Math.PI)}`;
  const end = Math.min(to, from + 0.99999); // a whole circle would begin where it ends, and be nothing
  const large = end - from > 0.5 ? 1 : 0;
  return `M${at(from, radius)} A${radius},${radius} 0 ${large} 1 ${at(end, radius)} L${at(end, hole)} A${hole},${hole} 0 ${large} 0 ${at(from, hole)} Z`;
}

export function Pie({ panel, frames, width, height, variables, theme }) {
  const options = panel.options ?? {};
  const reduceOptions = { calcs: ['lastNotNull'], values: false, fields: '', ...options.reduceOptions };
  const config = fieldConfig(panel);
  const parts = getFieldDisplayValues({ data: frames, fieldConfig: config, reduceOptions, replaceVariables: interpolator(variables), theme })
    .filter(({ display }) => display.numeric > 0);
  const total = parts.reduce((sum, { display }) => sum + display.numeric, 0);
  const right = (options.legend?.placement ?? 'right') === 'right';
  const items = parts.map(({ display }) => ({
    label: display.title, color: display.color, yAxis: 1,
    getDisplayValues: () => [{ ...display, title: 'Value' }, { numeric: 0, title: 'Percent', text: `${Math.round((100 * display.numeric) / total)}%` }],
  }));
  const legend = <VizLayout.Legend placement={right ? 'right' : 'bottom'}><VizLegend items={items} displayMode={options.legend?.displayMode ?? 'list'} placement={right ? 'right' : 'bottom'} /></VizLayout.Legend>;
  return (
    <VizLayout width={width} height={height} legend={options.legend?.showLegend === false ? null : legend}>
      {(wide, tall) => <Slices parts={parts} total={total} width={wide} height={tall} hollow={options.pieType === 'donut'} labels={options.displayLabels ?? []} theme={theme} />}
    </VizLayout>
  );
}

const shown = (display, label) => ({
  name: display.title, value: `${display.prefix ?? ''}${display.text}${display.suffix ?? ''}`, percent: `${Math.round(display.percent)}%`,
})[label];

function Slices({ parts, total, width, height, hollow, labels, theme }) {
  const radius = Math.max(10, Math.min(width, height) / 2 - 4);
  let turn = 0;
  return (
    <svg width={2 * radius} height={2 * radius} style={{ margin: '0 auto', display: 'block' }} data-drawn={parts.length}>
      {parts.map(({ display }, index) => {
        const from = turn;
        turn += display.numeric / total;
        const at = (hollow ? 0.5 + 0.5 * HOLE : 0.65) * radius;
        const middle = Math.PI * (from + turn);
        const [x, y] = [radius + at * Math.sin(middle), radius + 5 - at * Math.cos(middle)];
        return (
          <g key={index}>
            <path d={slice(from, turn, radius, hollow ? HOLE * radius : 0)} fill={display.color} stroke={theme.colors.background.primary} />
            {labels.map((label, row) => (
              <text key={label} x={x} y={y + 15 * row} textAnchor="middle" fontSize={13} fill={theme.colors.getContrastText(display.color)}>
                {shown({ ...display, percent: (100 * display.numeric) / total }, label)}
              </text>
            ))}
          </g>
        );
      })}
    </svg>
  );
}

// Three quarters of a circle, from the lower left to the lower right.
export function Arc({ value: { display, field }, width, height, theme }) {
  const radius = Math.min(width / 2, height / 1.75) - 4;
  const [low, high] = [field.min ?? 0, field.max ?? 100];
  const full = Math.min(1, Math.max(0, (display.numeric - low) / (high - low)));
  const part = (to, color) => <path d={slice(0, 0.75 * to, radius, 0.75 * radius)} fill={color} transform={`rotate(-135 ${radius} ${radius})`} />;
  return (
    <svg width={2 * radius} height={1.75 * radius} style={{ margin: '0 auto', display: 'block' }}>
      {part(1, theme.colors.background.secondary)}
      {part(full, display.color)}
      <text x={radius} y={1.1 * radius} textAnchor="middle" fontSize={0.4 * radius} fill={display.color}>{`${display.prefix ?? ''}${display.text}${display.suffix ?? ''}`}</text>
      <text x={radius} y={1.6 * radius} textAnchor="middle" fontSize={0.2 * radius} fill={theme.colors.text.primary}>{display.title}</text>
    </svg>
  );
}

const clock = (ms) => dateTimeFormat(ms, { format: 'HH:mm', timeZone: 'utc' });

// Round times, about one each 110 px.
function Clocks({ from, to, width, left }) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 360, 720, 1440].map((minutes) => minutes * 60000);
  const step = steps.find((ms) => (to - from) / ms <= width / 110) ?? steps.at(-1);
  const first = Math.ceil(from / step) * step;
  const times = Array.from({ length: Math.floor((to - first) / step) + 1 }, (_, index) => first + index * step);
  return times.map((ms) => (
    <span key={ms} style={{ position: 'absolute', bottom: 0, left: left + ((ms - from) / (to - from)) * width, transform: 'translateX(-50%)', fontSize: 12 }}>{clock(ms)}</span>
  ));
}

// Neighbours of one text are one stretch; a stretch lasts until the next begins.
function stretches(field, times, end) {
  const found = [];
  times.forEach((ms, index) => {
    const last = found.at(-1);
    if (field.values[index] === null) {
      if (last) last.to = Math.min(last.to, ms);
      return;
    }
    const shown = field.display(field.values[index]);
    if (last && last.to === end && last.text === shown.text && last.color === shown.color) return;
    if (last) last.to = Math.min(last.to, ms);
    found.push({ from: ms, to: end, text: `${shown.prefix ?? ''}${shown.text}${shown.suffix ?? ''}`, color: shown.color });
  });
  return found;
}

export function StateTimeline({ frames, width, height, range, theme }) {
  const [from, to] = [range.from.valueOf(), range.to.valueOf()];
  const rows = frames.flatMap((frame) => frame.fields.slice(1).map((field) => [getFieldDisplayName(field, frame, frames), field, frame.fields[0].values]));
  const left = Math.min(width / 3, 20 + 7.5 * Math.max(...rows.map(([name]) => name.length)));
  const [wide, tall] = [width - left - 8, (height - 22) / rows.length];
  const x = (ms) => (Math.max(0, ms - from) / (to - from)) * wide;
  return (
    <div style={{ position: 'relative', width, height, color: theme.colors.text.primary }} data-drawn={rows.length}>
      {rows.map(([name, field, times], row) => (
        <div key={row} style={{ position: 'absolute', top: row * tall, height: tall, width }}>
          <span style={{ position: 'absolute', width: left - 8, textAlign: 'right', lineHeight: `${tall}px`, fontSize: 12, overflow: 'hidden', whiteSpace: 'nowrap' }}>{name}</span>
          {stretches(field, times, to).filter((part) => part.to > part.from).map((part, index) => (
            <span key={index} style={{
              position: 'absolute', left: left + x(part.from), width: Math.max(1, x(part.to) - x(part.from)), top: tall * 0.05, height: tall * 0.9,
              lineHeight: `${tall * 0.9}px`, background: part.color, color: theme.colors.getContrastText(part.color), fontSize: 12, paddingLeft: 6,
              overflow: 'hidden', whiteSpace: 'nowrap',
            }}>{x(part.to) - x(part.from) > 30 ? part.text : ''}</span>
          ))}
        </div>
      ))}
      <Clocks from={from} to={to} width={wide} left={left} />
    </div>
  );
}

// A row per bucket, as the data source gives them: it has made them each bucket's own where the query asks for a heatmap.
export function Heatmap({ panel, frames, width, height, range, theme }) {
  const [from, to] = [range.from.valueOf(), range.to.valueOf()];
  const bound = (frame) => parseFloat((frame.fields[1].labels?.le ?? frame.name).replace('+Inf', 'Infinity'));
  const cells = frames.map((frame) => frame.fields[1].values);
  const most = Math.max(...cells.flat(), 0) || 1;
  const unit = getValueFormat(panel.options?.yAxis?.unit ?? 's');
  const text = (frame) => (Number.isFinite(bound(frame)) ? Object.values(unit(bound(frame))).join('') : '+Inf');
  const [left, tall] = [60, (height - 22) / frames.length];
  const wide = width - left - 8;
  return (
    <div style={{ position: 'relative', width, height, color: theme.colors.text.primary }} data-drawn={frames.length}>
      {frames.map((frame, row) => {
        const times = frame.fields[0].values;
        const step = times.length > 1 ? times[1] - times[0] : to - from;
        const top = height - 22 - (row + 1) * tall;
        return (
          <React.Fragment key={row}>
            <span style={{ position: 'absolute', top, width: left - 8, textAlign: 'right', lineHeight: `${tall}px`, fontSize: Math.min(12, tall) }}>{text(frame)}</span>
            {times.map((ms, at) => ms < to && cells[row][at] > 0 && (
              <span key={ms} data-count={cells[row][at]} style={{
                position: 'absolute', left: left + ((ms - from) / (to - from)) * wide, width: (step / (to - from)) * wide, top, height: tall - 1,
                background: theme.visualization.getColorByName('orange'), opacity: 0.15 + 0.85 * Math.sqrt(cells[row][at] / most),
              }} />
            ))}
          </React.Fragment>
        );
      })}
      <Clocks from={from} to={to} width={wide} left={left} />
    </div>
  );
}

const LEVELS = { critical: 'purple', error: 'red', warning: 'yellow', info: 'green', debug: 'blue' };

export function Logs({ panel, frames, height, theme }) {
  const [times, lines, labels] = frames[0].fields.map((field) => field.values);
  const color = (index) => theme.visualization.getColorByName(LEVELS[labels[index]?.level ?? labels[index]?.detected_level] ?? 'gray');
  return (
    <div style={{ height, overflow: 'hidden', fontFamily: theme.typography.fontFamilyMonospace, fontSize: 12, lineHeight: '19px' }} data-drawn={lines.length}>
      {lines.map((line, index) => (
        <div key={index} style={{ borderLeft: `3px solid ${color(index)}`, paddingLeft: 8, marginBottom: 2, whiteSpace: panel.options?.wrapLogMessage ? 'pre-wrap' : 'pre' }}>
          <span style={{ color: theme.colors.text.secondary }}>{dateTimeFormat(times[index], { format: 'YYYY-MM-DD HH:mm:ss.SSS', timeZone: 'utc' })} </span>{line}
        </div>
      ))}
    </div>
  );
}
