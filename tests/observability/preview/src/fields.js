// Field options, overrides and transformations as the dashboard has them, applied by @grafana/data.
import {
  FieldConfigOptionsRegistry, applyFieldOverrides, identityOverrideProcessor, standardTransformers,
  standardTransformersRegistry, transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

const transformers = [...new Map(Object.values(standardTransformers).map((each) => [each.id, each])).values()]; // some twice
standardTransformersRegistry.setInit(() =>
  transformers.map((transformation) => ({
    id: transformation.id, name: transformation.name, transformation, editor: () => null,
  })),
);

const STANDARD = [
  'unit', 'min', 'max', 'fieldMinMax', 'decimals', 'displayName', 'noValue', 'thresholds', 'mappings', 'links',
  'color', 'filterable', 'description',
];
const CUSTOM = [
  'drawStyle', 'lineWidth', 'lineStyle', 'lineInterpolation', 'fillOpacity', 'gradientMode', 'showPoints', 'pointSize',
  'stacking', 'spanNulls', 'insertNulls', 'axisPlacement', 'axisLabel', 'axisSoftMin', 'axisSoftMax', 'axisColorMode',
  'axisBorderShow', 'axisCenteredZero', 'axisGridShow', 'axisWidth', 'scaleDistribution', 'barAlignment', 'barWidthFactor',
  'barMaxWidth', 'fillBelowTo', 'transform', 'hideFrom', 'thresholdsStyle', 'cellOptions', 'width', 'minWidth', 'align',
  'inspect', 'filterable', 'hidden',
];
const option = (id, path, isCustom) => ({
  id, path, isCustom, name: id, editor: () => null, override: () => null, process: identityOverrideProcessor,
  shouldApply: () => true, getItemsCount: () => 0,
});
const registry = new FieldConfigOptionsRegistry(() => [
  ...STANDARD.map((id) => option(id, id, false)),
  ...CUSTOM.map((id) => option(`custom.${id}`, id, true)),
]);

// What the time series panel's plugin sets where the dashboard says nothing.
const TIME_SERIES = {
  drawStyle: 'line', lineWidth: 1, lineInterpolation: 'linear', fillOpacity: 0, gradientMode: 'none', showPoints: 'auto',
  pointSize: 5, stacking: { mode: 'none', group: 'A' }, spanNulls: false, insertNulls: false, axisPlacement: 'auto',
  axisLabel: '', axisColorMode: 'text', axisBorderShow: false, axisCenteredZero: false, barAlignment: 0, barWidthFactor: 0.6,
  scaleDistribution: { type: 'linear' }, hideFrom: { legend: false, tooltip: false, viz: false },
  thresholdsStyle: { mode: 'off' },
};
const TABLE = { align: 'auto', cellOptions: { type: 'auto' }, inspect: false };
const THRESHOLDS = { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }, { value: 80, color: 'red' }] };
const PALETTE = ['timeseries', 'piechart', 'barchart'];

export function fieldConfig(panel) {
  const given = panel.fieldConfig ?? {};
  const defaults = {
    thresholds: THRESHOLDS,
    mappings: [],
    color: { mode: PALETTE.includes(panel.type) ? 'palette-classic' : 'thresholds' },
    ...given.defaults,
    custom: { ...(panel.type === 'timeseries' ? TIME_SERIES : panel.type === 'table' ? TABLE : {}), ...given.defaults?.custom },
  };
  return { defaults, overrides: given.overrides ?? [] };
}

export const interpolator = (variables) => (text, scoped = {}) =>
  text.replace(/\$\{([\w.]+)(?::\w+)?\}|\$(\w+)/g, (whole, braced, bare) => {
    const [name, ...path] = (braced ?? bare).split('.');
    const value = path.reduce((at, key) => at?.[key], scoped[name]?.value);
    return value ?? variables[name] ?? whole;
  });

export async function applied(panel, raw, variables, theme) {
  const data = await firstValueFrom(transformDataFrame(panel.transformations ?? [], raw, { interpolate: interpolator(variables) }));
  return applyFieldOverrides({
    data, fieldConfig: fieldConfig(panel), fieldConfigRegistry: registry, replaceVariables: interpolator(variables), theme,
    timeZone: 'utc',
  });
}
