// One dashboard on Grafana's grid of 24 columns. Its JSON and the answers stand in the page, as <script id="input">.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { EventBusSrv, createTheme, dateTime, dateTimeFormat, getFieldDisplayName } from '@grafana/data';
import { GlobalStyles, PanelChrome, PanelContextProvider, ThemeContext } from '@grafana/ui';
import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';
import { applied, interpolator } from './fields.js';
import { frames } from './frames.js';
import { PANELS } from './panels.jsx';

const [ROW, GAP, MARGIN] = [30, 8, 16]; // px, Grafana's
const HEADER = 64;
const { dashboard, data, from_ms: fromMs, to_ms: toMs, width: WIDTH } = JSON.parse(document.getElementById('input').textContent);
const variables = data.variables ?? {};
const theme = createTheme({ colors: { mode: 'dark' } });
const range = { from: dateTime(fromMs), to: dateTime(toMs), raw: { from: 'now', to: 'now' } };
const COLUMN = (WIDTH - 2 * MARGIN + GAP) / 24;
const place = ({ x, y, w, h }) => ({
  left: MARGIN + x * COLUMN, top: HEADER + y * (ROW + GAP), width: w * COLUMN - GAP, height: h * (ROW + GAP) - GAP,
});

class Guard extends React.Component {
  state = { error: null };
  static getDerivedStateFromError = (error) => ({ error });
  render = () => (this.state.error ? <div className="failed">failed: {String(this.state.error.stack ?? this.state.error)}</div> : this.props.children);
}

function Body({ panel, frames: shown, width, height }) {
  const Draw = PANELS[panel.type];
  if (!Draw) return <div className="failed">failed: no panel of kind {panel.type}</div>;
  const empty = shown.every((frame) => !frame.length);
  if (empty && panel.type !== 'text') return <div className="empty">{panel.fieldConfig?.defaults?.noValue ?? 'No data'}</div>;
  return <Draw panel={panel} frames={shown} width={width} height={height} range={range} variables={variables} theme={theme} />;
}

function Panel({ panel, frames: shown }) {
  const spot = place(panel.gridPos);
  const title = interpolator(variables)(panel.title ?? '');
  if (panel.type === 'row') return <div className="grid-row" style={spot}>{panel.collapsed ? '›' : '⌄'} {title}</div>;
  return (
    <div style={{ position: 'absolute', ...spot }} data-panel={panel.id} data-kind={panel.type}>
      <PanelChrome title={title} width={spot.width} height={spot.height} displayMode={panel.transparent ? 'transparent' : 'default'} hoverHeader={!title}>
        {(width, height) => <Guard><Body panel={panel} frames={shown} width={width} height={height} /></Guard>}
      </PanelChrome>
    </div>
  );
}

const moment = (ms) => dateTimeFormat(ms, { format: 'YYYY-MM-DD HH:mm:ss', timeZone: 'utc' });

function Page({ panels }) {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <header>
        <h1>{dashboard.title} <small>· preview drawn with Grafana's components</small></h1>
        <span>{Object.entries(variables).map(([name, value]) => `${name}: ${value}   `)}{moment(fromMs)} to {moment(toMs)} UTC</span>
      </header>
      <PanelContextProvider value={{ eventsScope: 'global', eventBus: new EventBusSrv() }}>
        {panels.map(([panel, shown]) => <Panel key={panel.id} panel={panel} frames={shown} />)}
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
}

async function filled(panel) {
  const raw = frames(panel, data.panels?.[panel.id] ?? {});
  const shown = panel.type === 'row' ? [] : await applied(panel, raw, variables, theme);
  shown.forEach((frame) => frame.fields.forEach((field) => getFieldDisplayName(field, frame, shown)));
  return [panel, shown];
}

document.fonts.load('14px Inter')
  .then(() => Promise.all(dashboard.panels.map(filled)))
  .then((panels) => createRoot(document.getElementById('root')).render(<Page panels={panels} />))
  .catch((error) => { document.getElementById('root').textContent = `failed: ${error.stack}`; });
