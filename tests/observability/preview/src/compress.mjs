// node compress.mjs IN.png OUT.png: at most 256 colours, which a third of the bytes hold and no eye misses here.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const UPNG = createRequire(`${process.cwd()}/`)('upng-js');
const [, , from, to] = process.argv;
const picture = UPNG.decode(readFileSync(from));
writeFileSync(to, Buffer.from(UPNG.encode(UPNG.toRGBA8(picture), picture.width, picture.height, 256)));
