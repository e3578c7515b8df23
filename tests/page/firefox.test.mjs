import { client } from './client.mjs';
import { dashboard } from './dashboard.mjs';

client('firefox');
dashboard('firefox');
