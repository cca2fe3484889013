// subscriber - one of events of tasks that lives until it is closed: cut, it goes on after its last event, at another host.
//
//   const one = subscribe(() => [a, b], 'tasks:chat.completion');      await one.ready()
//   one.heard (task id -> names of final states), one.told (-> the last one's data), one.story (a line for each), one.last (event id), one.connections, one.gaps
//   await one.close()
import { keys } from './server.mjs';
import { waitFor } from './wait.mjs';

const finals = ['task.completed', 'task.failed', 'task.cancelled', 'task.timed_out'];

/** at: the server that is asked first; last: the id to go on after. */
export function subscribe(fleet, topics, { at = 0, last } = {}) {
  const self = { heard: new Map(), told: new Map(), gaps: 0, connections: 0, last, story: [] };
  let is_closed = false, stream;
  const take = ({ id, event, data }) => {
    if (id) self.last = id;
    if (event === 'ready') {
      self.connections++;
      if (data.gap) self.gaps++;
    }
    if (!finals.includes(event)) return;
    self.heard.set(data.data.task_id, [...(self.heard.get(data.data.task_id) ?? []), event]);
    self.told.set(data.data.task_id, data.data);
    self.story.push(`${new Date().toISOString()} ${id} ${event} ${data.data.task_id}`);
  };
  const end = (async () => {
    while (!is_closed) {
      const servers = fleet();
      try {
        stream = await servers[at++ % servers.length].stream(`/v1/events?topics=${topics}`, { key: keys.server, headers: self.last ? { 'last-event-id': self.last } : {} });
        if (is_closed) stream.close();
        for await (const event of stream) take(event);
      } catch {
        // its worker or its host was killed
      }
      await new Promise(setImmediate);
    }
  })();
  self.close = () => {
    is_closed = true;
    stream?.close();
    return end;
  };
  self.ready = () => waitFor(() => self.connections > 0, 'ready', 30000);
  return self;
}
