const canvas = element.querySelector("canvas"), paper = canvas.getContext("2d", { willReadFrequently: true });
const pen = { x: 140, y: 140, down: false };
let drawing = false, shown = null;

function blank() { paper.fillStyle = "#000"; paper.fillRect(0, 0, 280, 280); }
function line(x, y) {
  paper.strokeStyle = "#fff"; paper.lineWidth = 24; paper.lineCap = paper.lineJoin = "round";
  paper.beginPath(); paper.moveTo(pen.x, pen.y); paper.lineTo(x, y); paper.stroke();
}
function hand(value) { props.value = value; trigger("input"); }
function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * 280 / box.width, (event.clientY - box.top) * 280 / box.height];
}
// The pen of the keyboard is shown over the drawing and is no part of it.
function lift() { if (shown) { paper.putImageData(shown, 0, 0); shown = null; } }
function show() {
  shown = paper.getImageData(0, 0, 280, 280);
  paper.strokeStyle = pen.down ? "#4aa8e8" : "#ff8a3d"; paper.lineWidth = 2;
  paper.beginPath(); paper.arc(pen.x, pen.y, 12, 0, 7); paper.stroke();
}

blank();
canvas.addEventListener("pointerdown", (event) => {
  lift(); drawing = true; [pen.x, pen.y] = place(event); line(pen.x, pen.y);
  try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
});
canvas.addEventListener("pointermove", (event) => {
  if (!drawing) return;
  const [x, y] = place(event); line(x, y); pen.x = x; pen.y = y;
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => {
  if (drawing) { drawing = false; hand(canvas.toDataURL("image/png")); }
});
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
  if (!step && event.key !== " ") return;
  event.preventDefault(); lift();
  if (event.key === " ") { pen.down = !pen.down; if (pen.down) line(pen.x, pen.y); }
  else {
    const x = Math.min(270, Math.max(10, pen.x + step[0])), y = Math.min(270, Math.max(10, pen.y + step[1]));
    if (pen.down) line(x, y);
    pen.x = x; pen.y = y;
  }
  const picture = canvas.toDataURL("image/png");
  show();
  if (pen.down || event.key === " ") hand(picture);
});
canvas.addEventListener("blur", lift);
element.querySelector("button").addEventListener("click", () => { shown = null; pen.down = false; blank(); hand(""); });
