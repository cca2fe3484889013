// reporter - node:test results as one JSON object per line, for t/run.
import { inspect } from 'node:util';

/** The assertion itself, not the wrapper that node:test puts around it. */
function explain(error) {
  const cause = error?.cause ?? error;
  if (cause instanceof Error) return (cause.stack ?? cause.message).replace(/\n +at .*node:internal.*/g, '');
  return typeof cause === 'string' ? cause : inspect(cause);
}

export default async function* reporter(source) {
  for await (const { type, data } of source) {
    if (type === 'test:stdout' || type === 'test:stderr') {
      yield `${JSON.stringify({ output: data.message })}\n`;
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    // A suite only counts when it fails for a reason of its own (a hook), not for its tests.
    const is_suite = data.details?.type === 'suite';
    const failed_inside = data.details?.error?.failureType === 'subtestsFailed';
    if (type === 'test:pass' && is_suite) continue;
    if (type === 'test:fail' && failed_inside) continue;
    yield `${JSON.stringify({
      ok: type === 'test:pass',
      name: data.name,
      skip: data.skip !== undefined && data.skip !== false || data.todo !== undefined && data.todo !== false,
      ms: Math.round(data.details?.duration_ms ?? 0),
      error: type === 'test:fail' ? explain(data.details?.error) : undefined,
    })}\n`;
  }
}
