// A panel of each kind, drawn by the component of @grafana/ui that Grafana's own panel uses.
import React from 'react';
import { VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues, renderMarkdown } from '@grafana/data';
import { BarGauge, BigValue, Table, TimeSeries, VizRepeater } from '@grafana/ui';
import { fieldConfig, interpolator } from './fields.js';
import { Arc, Heatmap, Logs, Pie, StateTimeline } from './plain.jsx';

function Series({ panel, frames, width, height, range }) {
  const { legend = {} } = panel.options ?? {};
  const drawn = React.useRef(null);
  const count = (config) => {
    config.setPadding([null, 28, null, null]); // room for half of a time at the very end
    const seen = new Set(); // what uPlot has really drawn, for the test to read
    config.addHook('drawSeries', (_, index) => {
      seen.add(index);
      drawn.current?.setAttribute('data-drawn', String(seen.size));
    });
    return <i ref={drawn} />;
  };
  return (
    <TimeSeries
      frames={frames} structureRev={1} timeRange={range} timeZone="utc" width={width} height={height} options={panel.options ?? {}}
      legend={{ showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [], ...legend }}
    >
      {count}
    </TimeSeries>
  );
}

function values(panel, frames, variables, theme, sparkline) {
  const reduceOptions = { calcs: ['lastNotNull'], values: false, fields: '', ...panel.options?.reduceOptions };
  return getFieldDisplayValues({
    data: frames, fieldConfig: fieldConfig(panel), reduceOptions, replaceVariables: interpolator(variables), theme, timeZone: 'utc',
    sparkline,
  });
}

const ORIENTATION = { horizontal: VizOrientation.Horizontal, vertical: VizOrientation.Vertical, auto: VizOrientation.Auto };

// One component per value, in a row or column as the panel asks.
const repeated = (draw, sparkline = false) => function Values({ panel, frames, width, height, variables, theme, range }) {
  const options = panel.options ?? {};
  return (
    <VizRepeater
      source={frames} width={width} height={height} orientation={ORIENTATION[options.orientation] ?? VizOrientation.Auto}
      itemSpacing={8} minVizHeight={20} minVizWidth={8} autoGrid renderCounter={0}
      getValues={() => values(panel, frames, variables, theme, sparkline && options.graphMode !== 'none')}
      getAlignmentFactors={(all) => getDisplayValueAlignmentFactors(all)}
      renderValue={(item) => draw(item, options, theme, range)}
    />
  );
};

const Stat = repeated(({ value, alignmentFactors, width, height, count }, options, theme, range) => {
  const both = options.textMode === 'value_and_name' || (count > 1 && (options.textMode ?? 'auto') === 'auto');
  const textMode = both ? 'value_and_name' : options.textMode ?? 'auto';
  const sparkline = value.sparkline && { ...value.sparkline, timeRange: range };
  return (
    <BigValue
      value={{ ...value.display, title: both || options.textMode === 'name' ? value.display.title : '' }} width={width} height={height}
      count={count} theme={theme} sparkline={sparkline} alignmentFactors={count > 1 ? alignmentFactors : undefined}
      colorMode={options.colorMode ?? 'value'} graphMode={options.graphMode ?? 'area'} justifyMode={options.justifyMode ?? 'auto'}
      textMode={textMode} text={options.text}
    />
  );
}, true);

const Bars = repeated(({ value, alignmentFactors, width, height, orientation }, options, theme) => (
  <BarGauge
    value={value.display} width={width} height={height} orientation={orientation} field={value.field} theme={theme}
    display={value.view?.getFieldDisplayProcessor?.(value.colIndex)} alignmentFactors={alignmentFactors} itemSpacing={8}
    lcdCellWidth={12} displayMode={options.displayMode ?? 'gradient'} showUnfilled={options.showUnfilled ?? true}
    valueDisplayMode={options.valueMode} text={options.text}
  />
));

// Grafana's own gauge draws with a jQuery plugin that its package does not carry.
const Dial = repeated(({ value, width, height }, options, theme) => (
  <Arc value={value} width={width} height={height} theme={theme} />
));

const Rows = ({ panel, frames, width, height, range }) => (
  <Table
    data={frames[0]} width={width} height={height} timeRange={range} showTypeIcons={false} resizable={false}
    initialSortBy={panel.options?.sortBy} cellHeight={panel.options?.cellHeight ?? 'sm'}
  />
);

const Text = ({ panel, variables }) => {
  const content = interpolator(variables)(panel.options?.content ?? '');
  const html = panel.options?.mode === 'html' ? content : renderMarkdown(content);
  return <div className="markdown-html" dangerouslySetInnerHTML={{ __html: html }} />;
};

export const PANELS = {
  timeseries: Series, stat: Stat, gauge: Dial, bargauge: Bars, table: Rows, text: Text, piechart: Pie, barchart: Bars,
  'state-timeline': StateTimeline, heatmap: Heatmap, logs: Logs, alertlist: Rows,
};
