// ws_100k - 100,000 idle WebSockets in sessions of their own.
import { many } from './many.mjs';

export default () => many({ count: 100000, workers: 7, users: 64, hold_s: 45, limit: 300 });
