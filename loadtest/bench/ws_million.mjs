// ws_million - 1,000,000 idle WebSockets in sessions of their own, on one machine with both ends of each; or as many as it takes.
import { many } from './many.mjs';

export default () => many({ count: 1000000, workers: 55, users: 112, hold_s: 65, limit: 900 });
