// Images and videos: as tasks, and under the names that existing clients use; what webhooks say of them.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { json, key, said, echo, start } from './lib/tasks.mjs';
import { waitFor } from './lib/wait.mjs';

/** A provider of images and of jobs that make videos: two looks until one is done. */
function studio() {
  const jobs = new Map();
  const respond = (request, response) => {
    const { method, url } = request;
    const id = url.split('/')[3];
    if (url.endsWith('/chat/completions')) return echo(request, response);
    if (url.endsWith('/images/generations')) {
      const { prompt, n = 1, model } = JSON.parse(request.text);
      if (prompt === 'forbidden') return json(response, { error: { message: 'not that' } }, 400);
      return json(response, { created: 1, data: Array.from({ length: n }, (_, i) => ({ url: `http://images/${model}/${i}` })) });
    }
    if (method === 'POST' && url.endsWith('/videos')) {
      const once = request.headers['idempotency-key'];
      const old = [...jobs.values()].find((job) => job.once === once);
      if (old) return json(response, { id: old.id, status: 'queued', progress: 0 });
      const job = { id: `job_${jobs.size}`, once, looks: 0, prompt: JSON.parse(request.text).prompt, model: JSON.parse(request.text).model };
      jobs.set(job.id, job);
      return json(response, { id: job.id, status: 'queued', progress: 0 });
    }
    const job = jobs.get(id);
    if (!job) return json(response, { error: { message: 'no such job' } }, 404);
    if (method === 'DELETE') {
      job.is_deleted = true;
      return json(response, { id, deleted: true });
    }
    job.looks++;
    if (job.prompt === 'endless') return json(response, { id, status: 'in_progress', progress: Math.min(90, job.looks) });
    if (job.prompt === 'huge') return json(response, `{"id": "${id}", "status": "in_progress", "progress": 1e300}`);
    if (job.prompt === 'bad') return json(response, { id, status: 'failed', error: { code: 'moderation', message: 'not that' } });
    if (job.prompt === 'broken' && job.once.endsWith('.0')) return json(response, { id, status: 'failed', error: { code: 'internal_error', message: 'oops' } });
    if (job.looks === 2 && job.prompt === 'away') return json(response, { error: { message: 'away' } }, 500);
    return json(response, job.looks < 3 ? { id, status: 'in_progress', progress: job.looks * 30 } : { id, status: 'completed', progress: 100, url: `http://videos/${id}` });
  };
  return { jobs, respond };
}

const post = (tasks, route, body) => tasks.server.request(route, { key, method: 'POST', body });
const get = (tasks, route) => tasks.server.request(route, { key });

test('images, as a task and under the names that clients know', async (t) => {
  const { respond } = studio();
  const tasks = await start(t, respond);
  const task = await tasks.end((await tasks.post({ type: 'image.generation', input: { prompt: 'a fish', n: 2 } })).json.id);
  assert.deepEqual([task.status, task.result.data.map(({ url }) => url)], ['succeeded', ['http://images/theirs/0', 'http://images/theirs/1']]);
  const made = await post(tasks, '/v1/images/generations/async', { prompt: 'a cat' });
  assert.equal(made.status, 202);
  assert.equal(made.json.status, 'queued');
  assert.equal(made.json.check_status_url, `/v1/images/generations/${made.json.task_id}/status`);
  await tasks.end(made.json.task_id);
  const { json: status } = await get(tasks, made.json.check_status_url);
  assert.deepEqual([status.status, status.progress, status.result.data.length], ['succeeded', 100, 1]);
  const late = await tasks.server.request(`/v1/images/generations/${made.json.task_id}`, { key, method: 'DELETE' });
  assert.deepEqual([late.status, late.json.error.code], [400, 'invalid_operation']);
  const bad = await tasks.end((await post(tasks, '/v1/images/generations/async', { prompt: 'forbidden' })).json.task_id);
  assert.deepEqual([bad.status, bad.error.message, bad.error.retryable], ['failed', 'not that', false]);
  const chat = (await tasks.chat('x')).json.id;
  assert.equal((await get(tasks, `/v1/images/generations/${chat}/status`)).status, 404);
  assert.equal((await get(tasks, `/v1/tasks/${chat}/poll?timeout=20&interval=2`)).json.status, 'succeeded');
  assert.equal((await get(tasks, `/v1/tasks/${chat}/poll?timeout=601`)).status, 422);
  const sync = await post(tasks, '/v1/images/generations', { prompt: 'now' });
  assert.equal(sync.json.data.length, 1);
});

test('videos: begun once, looked at on timers, with progress; they hold no place', async (t) => {
  const { jobs, respond } = studio();
  const tasks = await start(t, respond, { tasks: { concurrency: 4, prefetch: 0 } });
  const endless = [];
  for (let i = 0; i < 12; i++) endless.push((await post(tasks, '/v1/videos/generations/async', { prompt: 'endless' })).json);
  assert.equal(endless[0].status, 'pending');
  assert.equal(endless[0].checkStatusUrl, `/v1/videos/generations/tasks/${endless[0].taskId}`);
  await waitFor(() => jobs.size === 12 && [...jobs.values()].every((job) => job.looks > 0), 'twelve jobs over four places');
  const seen = await waitFor(async () => {
    const { json: task } = await get(tasks, endless[0].checkStatusUrl);
    return task.progress > 0 && task;
  }, 'progress');
  assert.deepEqual([seen.status, seen.result, seen.videoResponse], ['running', null, null]);
  const huge = (await post(tasks, '/v1/videos/generations/async', { prompt: 'huge' })).json;
  const most = await waitFor(async () => {
    const { json: task } = await get(tasks, huge.checkStatusUrl);
    return task.progress > 0 && task;
  }, 'progress, whatever the provider says', 30000);
  assert.deepEqual([most.status, most.progress], ['running', 99]);
  endless.push(huge);
  // There is room for others meanwhile.
  const done = await tasks.end((await tasks.post({ type: 'video.generation', input: { prompt: 'a fish' } })).json.id);
  assert.equal(done.status, 'succeeded');
  assert.match(done.result.url, /^http:\/\/videos\/job_/);
  const shown = (await get(tasks, `/v1/videos/generations/tasks/${done.id}`)).json;
  assert.deepEqual([shown.status, shown.result, shown.videoResponse.data[0].url], ['completed', done.result.url, done.result.url]);
  for (const { taskId } of endless) assert.equal((await tasks.server.request(`/v1/videos/generations/${taskId}`, { key, method: 'DELETE' })).status, 204);
  assert.equal((await tasks.server.request(`/v1/videos/generations/${endless[0].taskId}`, { key, method: 'DELETE' })).status, 409);
  await waitFor(() => [...jobs.values()].filter((job) => job.is_deleted).length === 13, 'jobs that were stopped at the provider');
});

test('videos that fail, and providers that are away', async (t) => {
  const { jobs, respond } = studio();
  const tasks = await start(t, respond);
  const end = async (prompt) => tasks.end((await post(tasks, '/v1/videos/generations/async', { prompt })).json.taskId);
  const bad = await end('bad');
  assert.deepEqual([bad.status, bad.error.message, bad.error.retryable], ['failed', 'not that', false]);
  assert.deepEqual([(await post(tasks, `/v1/videos/generations/tasks/${bad.id}/retry`)).status], [400]);
  const broken = await end('broken');
  assert.deepEqual([broken.status, broken.attempts], ['succeeded', 1]);
  assert.equal((await end('away')).status, 'succeeded');
  assert.equal(jobs.size, 4);
});

test('webhooks of tasks, in their order', async (t) => {
  const { respond } = studio();
  const heard = [];
  const receiver = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    heard.push({ headers: request.headers, body: JSON.parse(Buffer.concat(parts).toString()) });
    response.end();
  });
  await new Promise((done) => { receiver.listen(0, '127.0.0.1', done); });
  t.after(() => { receiver.closeAllConnections(); receiver.close(); });
  const url = `http://127.0.0.1:${receiver.address().port}/hook`;
  const tasks = await start(t, respond, { webhooks: { allow_private: true } });
  const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
  const of = (id) => heard.filter(({ body }) => (body.data?.id ?? body.task_id) === id).map(({ body }) => body);
  const one = (await tasks.chat('hi', { webhook: { url, secret, headers: { 'x-mine': 'yes' } } })).json;
  await waitFor(() => of(one.id).length === 1, 'a webhook');
  const [{ headers, body }] = heard;
  assert.deepEqual([body.type, body.data.status, body.data.result.choices[0].message.content], ['task.completed', 'succeeded', 'echo hi']);
  assert.match(headers['webhook-id'], /^wh_/);
  assert.match(headers['webhook-signature'], /^v1,/);
  assert.equal(headers['x-mine'], 'yes');
  const image = (await post(tasks, '/v1/images/generations/async', { prompt: 'a fish', n: 2, webhook_url: url })).json.task_id;
  await waitFor(() => of(image).length === 2, 'webhooks of an image');
  assert.deepEqual(of(image).map((hook) => hook.webhook_type), ['image_generation_started', 'image_generation_completed']);
  const last = of(image)[1];
  assert.deepEqual([last.image_urls.length, last.images_generated, last.images_requested, last.prompt, last.error], [2, 2, 2, 'a fish', null]);
  const video = (await post(tasks, '/v1/videos/generations/async', { prompt: 'a fish', webhook_url: url })).json.taskId;
  await waitFor(() => of(video).some((hook) => hook.video_url), 'webhooks of a video');
  assert.ok(of(video).some((hook) => hook.progress_percentage > 0));
  for (const webhook of [{}, { url: 'ftp://x/' }, { url, events: ['x'] }, { url, headers: { a: 1 } }]) {
    const { status } = await tasks.chat('x', { webhook });
    assert.equal(status, 422, JSON.stringify(webhook));
  }
});

test('what a provider calls its job is one segment of a path, whatever is in it', async (t) => {
  const odd = '../files/x?y=1#z %2e&ü', asked = [];
  const tasks = await start(t, (request, response) => {
    if (request.method === 'POST') return json(response, { id: JSON.parse(request.text).prompt === 'dots' ? '..' : odd, status: 'queued' });
    asked.push(request.url);
    return json(response, { id: odd, status: 'completed', url: 'http://videos/odd' });
  });
  const video = (prompt) => tasks.post({ type: 'video.generation', input: { prompt } });
  assert.equal((await tasks.end((await video('x')).json.id)).status, 'succeeded');
  assert.deepEqual(asked, [`/v1/videos/${encodeURIComponent(odd)}`]);
  const dots = await tasks.end((await video('dots')).json.id);
  assert.deepEqual([dots.status, dots.error.code], ['failed', 'provider_error']);
  assert.equal(asked.length, 1);
});
