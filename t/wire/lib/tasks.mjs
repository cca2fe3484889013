// tasks - a server whose tasks run at a provider made of a function, and what its clients do.
import { keys, plainProvider, startServer } from './server.mjs';
import { startUpstream } from './upstream.mjs';

export const key = keys.server;
export const answer = (text) => JSON.stringify({ id: 'c', object: 'chat.completion', choices: [{ index: 0, message: { role: 'assistant', content: text }, finish_reason: 'stop' }], usage: { prompt_tokens: 3, completion_tokens: 5, total_tokens: 8 } });
export const json = (response, body, status = 200, headers = {}) => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
};
export const said = (request) => JSON.parse(request.text).messages.at(-1).content;
export const echo = (request, response) => json(response, answer(`echo ${said(request)}`));

export async function start(t, respond, config = {}) {
  const upstream = await startUpstream(t, respond);
  const server = await startServer(t, { config: configOf(upstream, config) });
  return { upstream, ...tasksOf(server) };
}

export const configOf = (upstream, config = {}) => ({
  providers: [plainProvider('p', upstream.url)],
  models: [{ name: 'default', targets: [{ provider: 'p', model: 'theirs' }], price: { input: 1, output: 2 } }],
  ...config,
  tasks: { backoff: '50ms', look_interval: '1s', job_interval: '30ms', job_interval_max: '50ms', ...config.tasks },
});

export function tasksOf(server) {
  const tasks = {
    server,
    post: (body, options = {}) => server.request('/v1/tasks', { key, body, ...options }),
    chat: (text, more = {}, options = {}) => tasks.post({ type: 'chat.completion', input: { messages: [{ role: 'user', content: text }] }, ...more }, options),
    get: async (id, query = '') => (await server.request(`/v1/tasks/${id}${query}`, { key, limit_ms: 90000 })).json,
    end: async (id) => {
      for (;;) {
        const task = await tasks.get(id, '?wait=20');
        if (task.ended_at) return task;
      }
    },
    cancel: (id) => server.request(`/v1/tasks/${id}/cancel`, { key, method: 'POST' }),
    retry: (id) => server.request(`/v1/tasks/${id}/retry`, { key, method: 'POST' }),
  };
  server.expectLog(/provider call failed/);
  return tasks;
}

