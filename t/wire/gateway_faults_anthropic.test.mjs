// The same table of faults before providers that speak Anthropic's Messages: clients see no difference.
process.env.PARLEY_TEST_DIALECT = 'anthropic';

await import('./gateway_faults.test.mjs');
