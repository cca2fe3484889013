// metrics - the exposition through a real Prometheus text parser.
import assert from 'node:assert/strict';
import parsePrometheusTextFormat from 'parse-prometheus-text-format';

/** {name: {type, help, metrics: [{value, labels}]}}; throws when the text is not the format. */
export function parseMetrics(text) {
  assert.ok(text.endsWith('\n'), 'the last line must end');
  const families = {};
  for (const family of parsePrometheusTextFormat(text)) {
    assert.ok(!(family.name in families), `${family.name} appears twice`);
    families[family.name] = family;
  }
  return families;
}

/** The sum of a family's samples whose labels include these. */
export function sumOf(families, name, labels = {}) {
  return (families[name]?.metrics ?? [])
    .filter((sample) => Object.entries(labels).every(([key, value]) => sample.labels?.[key] === value))
    .reduce((sum, sample) => sum + Number(sample.value), 0);
}
