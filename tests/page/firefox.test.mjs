import { client } from './client.mjs';
import { dashboard } from './dashboard.mjs';
import { examples } from './examples.mjs';

client('firefox');
dashboard('firefox');
examples('firefox');
