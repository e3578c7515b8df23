import { client } from './client.mjs';
import { dashboard } from './dashboard.mjs';

client('chromium');
dashboard('chromium');
