import { client } from './client.mjs';
import { dashboard } from './dashboard.mjs';
import { examples } from './examples.mjs';

client('chromium');
dashboard('chromium');
examples('chromium');
