// The protocol's own conformance suite against our client side: turns of a parleyd whose tool server is the suite.
//
// Not here: auth/* (a client of OAuth), elicitation-* and sep-2322-* (turns ask users nothing, so no capability is declared), and
// json-schema-2020-12-preservation (the model would have to repeat a schema).
import assert from 'node:assert/strict';
import path from 'node:path';
import { execFile } from 'node:child_process';
import { describe, test } from 'node:test';

const here = import.meta.dirname;
const suite = path.join(here, 'node_modules/@modelcontextprotocol/conformance/dist/index.js');
const driver = path.join(here, 'programs/conformance_driver.mjs');
const scenarios = ['initialize', 'tools_call', 'sse-retry', 'request-metadata', 'http-standard-headers', 'http-custom-headers', 'http-invalid-tool-headers', 'json-schema-ref-no-deref'];

describe('scenarios', { concurrency: 3 }, () => {
  for (const scenario of scenarios) {
    test(scenario, async () => {
      const output = await new Promise((resolve) => {
        execFile(process.execPath, [suite, 'client', '--command', `${process.execPath} ${driver}`, '--scenario', scenario, '--timeout', '60000'],
          { timeout: 90000 }, (error, stdout, stderr) => resolve(stdout + stderr));
      });
      assert.match(output, /OVERALL: PASSED/, output);
      assert.match(output, /Passed: [1-9]\d*\/\d+, 0 failed/);
    });
  }
});
